"""What a training step costs: by model, vocabulary, batch and optimizer, beside the machine's own ceilings.

Cases are timed in turn, round by round in one process, so that a ratio compares neighbours in time; absolute times of a
shared machine compare nothing. Batches lie in memory: the cost of input is measured apart, and is no part of a step.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.studies import _frame as frame
from benchmarks.studies._cost import ceilings
from benchmarks.studies._steps import Case, Timed
from mtl_zoo.benchmark.config import parse_assignments
from mtl_zoo.evaluation._figures import new_figure, save_figure

# How much longer than its ratio of work a model's step may take, against the first case's.
_ALLOWED = 1.5
OPTIONS = {
    **{"models": ("mmoe",), "vocabulary": (10_000, 100_000), "optimizers": ("auto",), "batch": (1024,)},
    **{"features": (30,), "numerics": 10, "steps_per_execution": 1},
}


def measure(cases: Sequence[Case], rounds: int, steps: int) -> list[dict[str, Any]]:
    """Times the cases in turn: a row for each, with medians over the rounds.

    Columns: the case's fields; `parameters`; `step_ms` and its parts `forward_ms`, `backward_ms` and `update_ms`
    (differences of medians); `embedding_ms`, the part of `forward_ms` that looks up the features, alone; `input_ms`,
    to draw a shuffled batch from 200,000 rows in memory, apart from the step; `examples_per_second` of the step;
    `step_gflops` and `step_mbytes`, the work of a step by its graph (see `_cost`); `matmul_share`, what of the ceiling
    its matrix products alone reach; `ratio`, the median over rounds of this case's step against the first case's in
    the same round, with its range; `bound`, 1.5 times the larger of the ratios of FLOPs and of bytes to the first
    case's, and `within_bound`; and the ceilings.
    """
    limits = ceilings()
    timed = [Timed(case) for case in cases]
    times: list[dict[str, list[float]]] = [{part: [] for part in one.parts} for one in timed]
    for _ in range(rounds):
        for one, found in zip(timed, times, strict=True):
            for name, seconds in one.parts.items():
                found[name].append(seconds(steps))
    costs = [one.cost() for one in timed]
    rows = []
    for one, cost, found in zip(timed, costs, times, strict=True):
        median = {name: statistics.median(seconds) for name, seconds in found.items()}
        parts = {name: median[name] for name in ("step", "input", "embedding", "forward")}
        parts |= {"backward": median["gradients"] - median["forward"], "update": median["step"] - median["gradients"]}
        compared = frame.ratios(found["step"], times[0]["step"])
        bound = _ALLOWED * max(cost.flops / costs[0].flops, cost.bytes / costs[0].bytes)
        rows.append(
            {
                **one.case.columns,
                "parameters": one.model.count_params(),
                **{f"{name}_ms": round(seconds * 1e3, 3) for name, seconds in parts.items()},
                "examples_per_second": round(one.case.batch / median["step"], 1),
                "step_gflops": round(cost.flops / 1e9, 4),
                "step_mbytes": round(cost.bytes / 1e6, 2),
                "uncounted": " ".join(cost.uncounted),
                "matmul_share": round(cost.matmul_flops / median["step"] / 1e9 / limits["matmul_gflops"], 4),
                **compared,
                "bound": round(bound, 4),
                "within_bound": compared["ratio"] <= bound,
                **limits,
                **{"rounds": rounds, "steps": steps},
            }
        )
    return rows


def cases_of(args: Any, replicas: int = 1) -> list[Case]:
    """A case for each combination of what `OPTIONS` gives several of."""
    given: dict[str, Any] = parse_assignments("--set", args.set)
    each = itertools.product(args.optimizers, args.models, args.features, args.batch, args.vocabulary)
    more = {"hyperparameters": given, "replicas": replicas, "steps_per_execution": args.steps_per_execution}
    return [
        Case(model, vocabulary, optimizer, batch, features, args.numerics, **more)
        for optimizer, model, features, batch, vocabulary in each
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.speed`."""
    parser = frame.parser(__doc__, OPTIONS | {"mirrored": 1, "rounds": 5, "steps": 20}, out="where the rows go, anew")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of what the steps are made of")
    args = parser.parse_args(arguments)
    cases = cases_of(args, args.mirrored)
    if args.mirrored > 1:
        frame.use_logical_cpus(args.mirrored)
    table = frame.write(args.out, measure(cases, args.rounds, args.steps))
    if args.plot:
        draw_steps(table, args.plot)
    columns = ("model", "vocabulary", "optimizer", "step_ms", "input_ms", "embedding_ms", "forward_ms", "backward_ms")
    columns += ("update_ms", "step_gflops", "step_mbytes", "matmul_share", "ratio", "bound")
    frame.show(table, columns, "steps, in turn; ratio against the first row")
    return 0


_COLORS = {"embedding read": "C0", "forward": "C1", "backward": "C2", "update": "C3"}
_WORDS = {
    **{"model": "", "optimizer": "", "vocabulary": " ids", "batch": " rows", "features": " features"},
    **{"replicas": " replicas", "steps_per_execution": " steps a call"},
}


def draw_steps(table: pd.DataFrame, path: Path) -> Path:
    """A bar for each row: milliseconds of a step by part, and of drawing the next batch below it."""
    rows = table.iloc[::-1]
    positions = np.arange(len(rows))
    parts = {
        "embedding read": rows["embedding_ms"],
        "forward": (rows["forward_ms"] - rows["embedding_ms"]).clip(lower=0),
        "backward": rows["backward_ms"].clip(lower=0),
        "update": rows["update_ms"].clip(lower=0),
    }
    figure = new_figure(9, 1.3 + 0.5 * len(rows))
    panel = figure.subplots()
    left = np.zeros(len(rows))
    for name, color in _COLORS.items():
        panel.barh(positions + 0.1, parts[name], 0.5, left=left, color=color, label=name)
        left = left + parts[name].to_numpy()
    # Below the step, since it is drawn while the step before runs.
    panel.barh(positions - 0.28, rows["input_ms"], 0.18, color="0.6", label="input (beside the step)")
    for position, end, ratio in zip(positions, left, rows["ratio"], strict=True):
        panel.text(end, position + 0.1, f" {ratio:.2f}x", va="center", fontsize="small")
    varying = [name for name in _WORDS if table[name].nunique() > 1] or ["model"]
    labels = [
        ", ".join(f"{row[n]:,}{_WORDS[n]}" if _WORDS[n] else str(row[n]) for n in varying)
        for row in rows.to_dict("records")
    ]
    panel.set_yticks(positions, labels)
    panel.set_xlim(0, left.max() * 1.12)
    panel.set_xlabel("milliseconds a step (x: the step against the first row's, median over rounds)")
    panel.grid(axis="x", alpha=0.3)
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize="small", frameon=False)
    return save_figure(figure, path)


if __name__ == "__main__":
    frame.start(__file__)
