"""The MMoE paper's experiment: does shared-bottom's loss depend on how related the tasks are, and MMoE's less?

For each seed and correlation one data set of `synthetic_regression` is drawn, and both models are trained on it, at the
paper's sizes: 8 experts of 16 units and towers of 8, and a bottom of 113, which has as many weights. The runs are those
of the runner, so they are resumed as all others are; the findings are computed from its rows.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.command import count_runs, interruptible, run_configs
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.progress import Shown
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.evaluation import Interval, bootstrap_interval

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
    seeds: int = 20,
    correlations: Sequence[float] = CORRELATIONS,
    *,
    c: float = 1.0,
    m: int = 10,
    size: int = 50_000,
    epochs: int = 12,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
) -> list[RunConfig]:
    """The runs of the study: seed by seed, so that a study cut short has whole seeds; neighbours share their data.

    A seed draws the data (directions, sines, rows, noise; all but the relatedness is the same for its correlations),
    the weights and the order of the rows. `c` and `m` are PLE's; the MMoE paper does not give its own.

    Args:
        seeds: Data sets for each correlation, from seed 0 on.
        correlations: Cosines between the tasks' weights.
        c, m, size: Of `synthetic_regression`.
        epochs, batch_size, learning_rate: Of the training; all epochs are trained.

    Raises:
        ValueError: Fewer than 2 correlations, or one twice; what `RunConfig` refuses.

    Example:

    >>> from mtl_zoo.benchmark.correlation import correlation_configs
    >>> [(run.model, run.dataset_options["correlation"]) for run in correlation_configs(1, (0, 1))]
    [('shared_bottom', 0.0), ('mmoe', 0.0), ('shared_bottom', 1.0), ('mmoe', 1.0)]
    """
    check.check_int("seeds", seeds)
    if len(correlations) < 2 or check.duplicates(correlations):
        raise ValueError(f"`correlations` must be at least 2 different numbers. Received: {list(correlations)}")
    return [
        RunConfig(
            "synthetic_regression",
            model,
            hyperparameters,
            {"correlation": float(correlation), "seed": seed, "c": c, "m": m, "size": size},
            seeds=(seed,),
            epochs=epochs,
            batch_size=batch_size,
            steps_per_execution=_STEPS_PER_EXECUTION,
            learning_rate=learning_rate,
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


def correlation_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.correlation_study`; returns the exit code, as `run_main` does."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.correlation_study",
        description="Shared-bottom and MMoE on synthetic_regression over seeds and task correlations; runs whose rows "
        "are in the file are skipped. Prints whether the MMoE paper's claims hold.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go")
    parser.add_argument("--seeds", type=int, default=20, help="data sets for each correlation")
    parser.add_argument("--correlations", type=float, nargs="+", default=list(CORRELATIONS))
    parser.add_argument("--c", type=float, default=1.0, help="scale of the weights")
    parser.add_argument("--m", type=int, default=10, help="number of sines")
    parser.add_argument("--size", type=int, default=50_000, help="training rows, and a fifth of it twice for the rest")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables, too")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the losses, too")
    args = parser.parse_args(arguments)
    names = ("seeds", "correlations", "c", "m", "size", "epochs", "batch_size", "learning_rate")
    console = Console(stderr=True)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        configs = correlation_configs(**{name: getattr(args, name) for name in names})
        store = ResultStore(args.out)
        failed = 0
        if not args.report_only:
            with Shown(console, count_runs(configs)) as progress, interruptible():
                failed = run_configs(configs, store, progress).failed
        _report(store, args)
    except KeyboardInterrupt:
        console.print(f"[bold red]cut short:[/] the same command goes on: {escape(str(args.out))}", soft_wrap=True)
        return 130
    except ValueError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    return 1 if failed else 0


def _report(store: ResultStore, args: argparse.Namespace) -> None:
    losses = correlation_losses(store.read())
    if losses.empty:
        raise ValueError(f"`--out` must hold finished runs of the study. Received: {store.path}, which has none")
    parts = [correlation_markdown(own) for _, own in losses.groupby("setting", sort=False)]
    Console().print("\n".join(parts), highlight=False, markup=False, soft_wrap=True)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text("\n".join(parts), encoding="utf-8")
    if args.picture:
        from mtl_zoo.benchmark.plots import draw_correlations

        draw_correlations(losses, args.picture)
