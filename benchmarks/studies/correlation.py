"""The MMoE paper's experiment: does shared-bottom's loss depend on how related the tasks are, and MMoE's less?

For each seed and correlation one data set of `synthetic_regression` is drawn, and both models are trained on it, at the
paper's sizes: 8 experts of 16 units and towers of 8, and a bottom of 113, which has as many weights. The runs are those
of the runner, so they are resumed as all others are; the findings are computed from its rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.studies import _frame as frame
from mtl_zoo.benchmark.command import count_runs, interruptible, run_configs
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.evaluation import Interval, bootstrap_interval
from mtl_zoo.evaluation._figures import new_figure, save_figure

# The paper's rule gives the width 113: parameter_matched(..., count="kernels").
MODELS: dict[str, dict[str, Any]] = {
    "shared_bottom": {"bottom_units": (113,), "tower_units": (8,)},
    "mmoe": {"num_experts": 8, "expert_units": (16,), "tower_units": (8,)},
}
CORRELATIONS = (0.0, 0.5, 0.9, 1.0)
DIFFERENCE = "mmoe - shared_bottom"
# A step of so small a model takes less time than calling it; a divisor of the 391 of an epoch.
_STEPS_PER_EXECUTION = 17


def correlation_configs(
    seeds: int, correlations: Sequence[float], *, c: float = 1.0, m: int = 10, size: int = 50_000, **training: Any
) -> list[RunConfig]:
    """The runs of the study: seed by seed, so that a study cut short has whole seeds; neighbours share their data.

    A seed draws the data (directions, sines, rows, noise; all but the relatedness is the same for its correlations),
    the weights and the order of the rows. `c` and `m` are PLE's; the MMoE paper does not give its own.

    Args:
        seeds: Data sets for each correlation, from seed 0 on.
        correlations: Cosines between the tasks' weights.
        c, m, size: Of `synthetic_regression`.
        **training: Of `RunConfig`; all epochs are trained.
    """
    return [
        RunConfig(
            "synthetic_regression",
            model,
            hyperparameters,
            {"correlation": float(correlation), "seed": seed, "c": c, "m": m, "size": size},
            seeds=(seed,),
            steps_per_execution=_STEPS_PER_EXECUTION,
            **training,
        )
        for seed in range(seeds)
        for correlation in correlations
        for model, hyperparameters in MODELS.items()
    ]


def correlation_losses(table: pd.DataFrame) -> pd.DataFrame:
    """Losses by run: mean squared errors, the mean of both tasks.

    Args:
        table: What `ResultStore.read` gives. Rows of other data sets and failed runs are left out.

    Returns:
        One row a run: `setting` (all that is not seed, correlation or model), `seed`, `correlation`, `model`,
        `best_epoch`, `validation` and `test` (of the best epoch), and `last_validation` (after the last one).
    """
    done = table[(table["dataset"] == "synthetic_regression") & (table["error"] == "") & table["model"].isin(MODELS)]
    rows = []
    for _, run in done.drop_duplicates(["key", "split", "task", "metric"], keep="last").groupby("key", sort=False):
        first: dict[Any, Any] = run.iloc[0].to_dict()
        options = json.loads(first["dataset_options"])
        value = run.pivot(index="task", columns=["split", "metric"], values="value")
        found = value["validation"]
        # The score is 1 - NRMSE, whose unit is the standard deviation of the labels.
        last = (1 - found["last_score"]) * found["rmse"] / found["nrmse"]
        row = {"setting": _setting(first, options), "seed": int(first["seed"])}
        row |= {"correlation": options["correlation"], "model": first["model"], "best_epoch": int(first["best_epoch"])}
        row |= {split: float((value[split]["rmse"] ** 2).mean()) for split in ("validation", "test")}
        rows.append({**row, "last_validation": float((last**2).mean())})
    columns = ["setting", "seed", "correlation", "model", "best_epoch", "validation", "test", "last_validation"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:4], ignore_index=True)


def _setting(run: dict[Any, Any], options: dict[str, Any]) -> str:
    parts = {name: options[name] for name in ("c", "m", "d", "size")} | {
        name: run[name] for name in ("epochs", "batch_size", "optimizer")
    }
    return ", ".join(f"{name}={value}" for name, value in parts.items())


def correlation_findings(losses: pd.DataFrame, loss: str = "test", **bootstrap: Any) -> pd.DataFrame:
    """The paper's two claims in numbers, with intervals from a paired bootstrap of the seeds.

    * `slope`: the mean over seeds of the slope of `ln loss` on the correlation. The claim for shared-bottom: below 0.
      At -0.1 the loss is a tenth less at correlation 1 than at 0.
    * `std`, `iqr` of `ln loss` over seeds, at each correlation and as a mean over them. The claim: the difference is
      below 0. On the logarithm, since another draw of the sines multiplies the losses of both models.
    * `ln loss`: the mean over seeds, at each correlation and over all.

    Args:
        losses: What `correlation_losses` gives, of one setting. Seeds that lack a run are left out.
        loss: The column that counts.
        **bootstrap: `resamples`, `confidence` and `seed` of `bootstrap_interval`.

    Returns:
        One row for each finding, `correlation` (NaN: all) and `model`, both models and their difference: `seeds`,
        `value`, `low`, `high`.

    Raises:
        ValueError: Several settings; fewer than 2 whole seeds.
    """
    settings = sorted(set(losses["setting"]))
    if len(settings) != 1:
        raise ValueError(f"`losses` must be of one setting. Received: {settings}")
    logs = losses.assign(log=np.log(losses[loss]))
    wide = logs.pivot(index="seed", columns=["model", "correlation"], values="log").dropna()
    correlations = np.array(sorted(set(losses["correlation"])))
    if len(wide) < 2 or not set(MODELS) <= set(wide.columns.get_level_values(0)):
        raise ValueError(f"`losses` must hold at least 2 seeds with all their runs. Received: {len(wide)} such seeds")
    base, other = (wide[model][correlations].to_numpy() for model in ("shared_bottom", "mmoe"))
    centred = correlations - correlations.mean()

    def slope(logs):
        return float(np.mean(logs @ centred / (centred @ centred)))

    def iqr(logs):
        return float(np.mean(np.subtract(*np.percentile(logs, [75, 25], axis=0))))

    def std(logs):
        return float(np.mean(np.std(logs, axis=0, ddof=1)))

    rows: list[dict[str, Any]] = []

    def add(finding, statistic, correlation=float("nan"), at=slice(None)):
        found: dict[str, Interval] = {
            model: bootstrap_interval(statistic, logs[:, at], **bootstrap)
            for model, logs in (("shared_bottom", base), ("mmoe", other))
        }
        found[DIFFERENCE] = bootstrap_interval(
            lambda a, b: statistic(b) - statistic(a), base[:, at], other[:, at], **bootstrap
        )
        for model, interval in found.items():
            row = {"finding": finding, "correlation": correlation, "model": model, "seeds": len(wide)}
            rows.append(row | interval._asdict())

    add("slope", slope)
    for finding, statistic in (("std", std), ("iqr", iqr), ("ln loss", lambda logs: float(np.mean(logs)))):
        add(finding, statistic)
        for place, correlation in enumerate(correlations):
            add(finding, statistic, correlation, slice(place, place + 1))
    return pd.DataFrame(rows)


def verdict(findings: pd.DataFrame) -> list[str]:
    """Whether the paper's two claims hold, one sentence each: by the intervals, not by the values alone."""

    def found(finding, model):
        rows = findings[
            (findings["finding"] == finding) & (findings["model"] == model) & findings["correlation"].isna()
        ]
        return rows.iloc[0]

    sentences = []
    for claim, finding, model in (
        ("Shared-bottom's loss falls as the correlation rises", "slope", "shared_bottom"),
        ("MMoE's loss varies less over seeds than shared-bottom's (standard deviation of ln loss)", "std", DIFFERENCE),
        ("MMoE's loss varies less over seeds than shared-bottom's (interquartile range of ln loss)", "iqr", DIFFERENCE),
    ):
        row = found(finding, model)
        holds = "holds" if row["high"] < 0 else "is contradicted" if row["low"] > 0 else "is not seen"
        numbers = f"{row['value']:+.3f}, 95 % interval {row['low']:+.3f} .. {row['high']:+.3f}, {row['seeds']} seeds"
        sentences.append(f"{claim}: {holds} ({numbers}).")
    return sentences


def correlation_markdown(losses: pd.DataFrame) -> str:
    """One setting as Markdown: the claims, the loss by correlation, and the findings."""
    findings = correlation_findings(losses)
    lines = [f"Setting: {losses['setting'].iloc[0]}; {findings['seeds'].iloc[0]} seeds.", ""]
    lines += [*(f"* {sentence}" for sentence in verdict(findings)), ""]
    lines += ["| correlation | model | median test loss | quartiles | runs |", "|---:|---|---:|---:|---:|"]
    for (correlation, model), own in losses.groupby(["correlation", "model"]):
        low, middle, high = np.percentile(own["test"], [25, 50, 75])
        lines.append(f"| {correlation:g} | {model} | {middle:.4f} | {low:.4f} .. {high:.4f} | {len(own)} |")
    lines += ["", "| finding | correlation | model | value | 95 % interval |", "|---|---:|---|---:|---:|"]
    for row in findings.to_dict("records"):
        where = "all" if np.isnan(row["correlation"]) else f"{row['correlation']:g}"
        interval = f"{row['low']:+.3f} .. {row['high']:+.3f}"
        lines.append(f"| {row['finding']} | {where} | {row['model']} | {row['value']:+.3f} | {interval} |")
    return "\n".join(lines) + "\n"


def draw_correlations(losses: pd.DataFrame, path: str | Path) -> Path:
    """Loss against the tasks' correlation, a row of panels for each setting, a dot for each run.

    On the left both models, with a line through the medians; on the right the ratio of the two on the same data.

    Args:
        losses: What `correlation_losses` gives.
        path: Where to.
    """
    settings = list(dict.fromkeys(losses["setting"]))
    figure = new_figure(10, 0.5 + 3.4 * len(settings))
    rows = figure.subfigures(len(settings), 1, squeeze=False)[:, 0]
    for row, setting in zip(rows, settings, strict=True):
        left, right = row.subplots(1, 2)
        own = losses[losses["setting"] == setting]
        wide = own.pivot(index="seed", columns=["model", "correlation"], values="test")
        models = {"shared_bottom": "C0", "mmoe": "C1"}
        for place, (model, color) in enumerate(models.items()):
            _dots_and_medians(left, wide[model], (place - 0.5) * 0.02, color, model)
        ratio = wide["mmoe"] / wide["shared_bottom"]
        _dots_and_medians(right, ratio, 0.0, "C2", "mmoe / shared_bottom")
        right.axhline(1, color="0.5", linestyle="--", linewidth=1)
        for panel, title in ((left, "test loss (mean squared error)"), (right, "ratio on the same data")):
            panel.set_yscale("log")
            panel.set_xlabel("correlation of the tasks' weights")
            panel.set_title(title, fontsize="medium")
            panel.grid(alpha=0.3)
            panel.legend(fontsize="small", frameon=False)
        # Under both panels: it is longer than one of them is wide.
        row.supxlabel(f"{setting}, {len(wide)} seeds", fontsize="small")
    return save_figure(figure, path)


def _dots_and_medians(panel, values: pd.DataFrame, shift: float, color: str, label: str) -> None:
    values = values.sort_index(axis="columns")
    at = np.array(values.columns, dtype="float64") + shift
    panel.plot(at, values.T, ".", color=color, alpha=0.4)
    panel.plot(at, values.median(), "-o", color=color, label=f"{label}, median")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.correlation`: 1 if a run failed, 130 if it was cut short."""
    options = {"c": 1.0, "m": 10, "size": 50_000, "epochs": 12, "batch_size": 128, "learning_rate": 1e-3}
    parser = frame.parser(__doc__, {"seeds": 20, "correlations": CORRELATIONS, **options, "report_only": False})
    parser.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables, too")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the losses, too")
    args = parser.parse_args(arguments)
    configs = correlation_configs(args.seeds, args.correlations, **{name: getattr(args, name) for name in options})
    store, failed = ResultStore(args.out), 0
    if not args.report_only:
        with Shown(Console(stderr=True), count_runs(configs)) as progress, interruptible():
            failed = run_configs(configs, store, progress).failed
    losses = correlation_losses(store.read())
    if losses.empty:
        raise ValueError(f"`--out` must hold finished runs of the study. Received: {store.path}, which has none")
    text = "\n".join(correlation_markdown(own) for _, own in losses.groupby("setting", sort=False))
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    if args.picture:
        draw_correlations(losses, args.picture)
    return int(failed > 0)


if __name__ == "__main__":
    frame.start(__file__)
