"""The demo: models of the zoo compared on data whose best possible result is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.markup import escape

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.command import count_runs, run_configs
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict
from mtl_zoo.benchmark.plots import draw_gates, draw_report, draw_stitches
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.report import markdown, print_report
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.summary import Section, summarise
from mtl_zoo.evaluation import gate_report
from mtl_zoo.layers import BaseGate, CrossStitchUnit

_ROWS_FOR_GATES = 20_000


def demo_configs(seeds: int = 2, **overrides: Any) -> list[RunConfig]:
    """The demo's runs; `overrides` replace arguments of `RunConfig`.

    Example:

    >>> from mtl_zoo.benchmark.demo import demo_configs
    >>> [config.model for config in demo_configs()]
    ['single_task', 'shared_bottom', 'cross_stitch', 'mmoe', 'esmm', 'single_task', 'shared_bottom', 'esmm']
    """
    import yaml

    text = (resources.files("mtl_zoo.benchmark") / "configs" / "demo.yaml").read_text(encoding="utf-8")
    return configs_from_dict(yaml.safe_load(text), source="demo.yaml", seeds=seeds, **overrides)


def run_demo(
    out: str | Path = "results/demo",
    seeds: int = 2,
    *,
    console: Console | None = None,
    configs: list[RunConfig] | None = None,
) -> int:
    """Trains, evaluates and compares; leaves `results.csv`, `leaderboard.md` and three pictures in `out`.

    Runs that are in `results.csv` already are not repeated.

    Args:
        out: Folder of the results.
        seeds: Runs of each model.
        console: Where to print.
        configs: Other runs than the demo's.

    Returns:
        The exit code: 1 if a run failed.

    Raises:
        ValueError: `seeds` < 1.
    """
    check.check_int("seeds", seeds)
    console = console or Console()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    configs = demo_configs(seeds) if configs is None else configs
    store = ResultStore(out / "results.csv")
    inside = _Inside(out / "inside.json")
    with Shown(console, count_runs(configs)) as progress:
        total = run_configs(configs, store, progress, on_trained=inside.look)
    results = store.read()
    if (results["error"] == "").any():
        sections = summarise(results)
        print_report(sections, console)
        for sentence in findings(sections):
            console.print(f"* {escape(sentence)}", highlight=False)
        (out / "leaderboard.md").write_text(markdown(sections), encoding="utf-8")
        draw_report(sections, out / "oracle.png")
        inside.draw(out)
    console.print(f"in {out}: " + ", ".join(sorted(path.name for path in out.iterdir())), highlight=False)
    return 1 if total.failed else 0


def findings(sections: Sequence[Section]) -> list[str]:
    """What the demo shows, in sentences with the numbers of its rows."""
    sentences = []
    for section in sections:
        column = section.columns[-1]
        gains = {line.label: line.cells[column].gain for line in section.lines if column in line.cells}
        gains = {label: value for label, value in gains.items() if np.isfinite(value)}
        if gains:
            best = max(gains, key=lambda label: gains[label])
            rows = section.split_rule.rpartition(": ")[2].partition(" / ")[0]
            what = f"{gains[best]:+.4f} {column.title}"
            sentences.append(f"With {rows} training rows, {best} gains {what} over a model for each task.")
        if any(line.model == "esmm" and section.lines[-1] is line for line in section.lines):
            sentences.append(
                "ESMM comes last there in the order, which counts conversion on clicked rows: it is trained on click "
                "and conversion together over all impressions, never on clicked rows alone."
            )
    return sentences


class _Inside:
    """Mean gates and stitch matrices of trained models, kept in a file so that a repeated demo can draw them again."""

    def __init__(self, path: Path):
        self.path = path
        self.found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def look(self, model: Any, dataset: Any, config: RunConfig, seed: int) -> None:
        if config.model not in ("mmoe", "cross_stitch"):
            return
        title = f"{config.model}, seed {seed}"
        gates = mean_gates(model, dataset.test.take(min(_ROWS_FOR_GATES, len(dataset.test))))
        self.found.setdefault("tasks", [task.name for task in dataset.tasks])
        if gates:
            self.found.setdefault("gates", {})[title] = {task: list(map(float, g)) for task, g in gates.items()}
        stitches = stitch_matrices(model)
        if stitches:
            self.found.setdefault("stitches", {})[title] = {name: m.tolist() for name, m in stitches.items()}
        self.path.write_text(json.dumps(self.found, indent=1), encoding="utf-8")

    def draw(self, out: Path) -> None:
        if "gates" in self.found:
            draw_gates(self.found["gates"], out / "gates.png")
        if "stitches" in self.found:
            draw_stitches(self.found["stitches"], self.found["tasks"], out / "stitches.png")


def mean_gates(model: Any, split: Any) -> dict[str, np.ndarray]:
    """Mean weight of every expert over the rows of `split`, by the gate's task; empty for models without gates."""
    if not any(isinstance(layer, BaseGate) for layer in model.layers):
        return {}
    by_gate = gate_report(model, split).table.groupby("gate", sort=False)
    return {str(gate).removesuffix("_gate"): own["weight"].to_numpy() for gate, own in by_gate}


def stitch_matrices(model: Any) -> dict[str, np.ndarray]:
    """The stitch matrix after every layer, channels averaged; empty for models without stitches."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, CrossStitchUnit):
            matrix = keras.ops.convert_to_numpy(layer.matrix)
            found[layer.name] = matrix if matrix.ndim == 2 else matrix.mean(axis=-1)
    return found
