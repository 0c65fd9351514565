"""What a training step costs: by model, vocabulary, batch and optimizer, beside the machine's own ceilings.

Cases are timed in turn, round by round in one process, so that a ratio compares neighbours in time; absolute times of a
shared machine compare nothing. Batches lie in memory: the cost of input is measured apart, and is no part of a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd
from rich.console import Console
from rich.table import Table

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.ceilings import ceilings
from mtl_zoo.benchmark.config import parse_assignments
from mtl_zoo.benchmark.cost import Cost
from mtl_zoo.benchmark.memory import measure_memory
from mtl_zoo.benchmark.speed_case import SpeedCase, TimedCase
from mtl_zoo.benchmark.speed_plot import draw_steps

__all__ = ["SpeedCase", "ceilings", "measure", "speed_main"]

# How much longer than its ratio of work a model's step may take, against the first case's.
_ALLOWED = 1.5
_SHOWN = {
    "steps, in turn; ratio against the first row": (
        *("model", "vocabulary", "optimizer", "step_ms", "input_ms", "embedding_ms", "forward_ms", "backward_ms"),
        *("update_ms", "step_gflops", "step_mbytes", "matmul_share", "ratio", "bound"),
    ),
    "peak memory": (
        *("model", "vocabulary", "optimizer", "tables_mb", "slots", "start_mb", "built_mb", "peak_mb"),
        *("over_start_mb", "bound_mb", "within_bound"),
    ),
}


def measure(cases: Sequence[SpeedCase], *, rounds: int = 5, steps: int = 20) -> pd.DataFrame:
    """Times the cases in turn: a row for each, with medians over the rounds.

    Columns: the case's fields; `parameters`; `step_ms` and its parts `forward_ms`, `backward_ms` and `update_ms`
    (differences of medians); `embedding_ms`, the part of `forward_ms` that looks up the features, alone; `input_ms`,
    to draw a shuffled batch from 200,000 rows in memory, apart from the step; `examples_per_second` of the step;
    `step_gflops` and `step_mbytes`, the work of a step by its graph (see `benchmark.cost`); `matmul_share`, what of
    the ceiling its matrix products alone reach; `ratio`, the median over rounds of this case's step against the first
    case's in the same round, with `ratio_low` and `ratio_high`; `bound`, 1.5 times the larger of the ratios of FLOPs
    and of bytes to the first case's, and `within_bound`; the ceilings; and what the figures depend on.

    Args:
        cases: What to time; ratios are against the first.
        rounds: How often each case has its turn.
        steps: Steps a turn, of each part.

    Raises:
        ValueError: No case; the backend is not TensorFlow.
    """
    if not _backend.is_tensorflow():
        raise ValueError(f"`measure` needs the TensorFlow backend. Received: {keras.backend.backend()!r}")
    if not cases:
        raise ValueError("`cases` must hold at least one case. Received: none")
    check.check_int("rounds", rounds)
    check.check_int("steps", steps)
    limits = ceilings()
    timed = [TimedCase(case) for case in cases]
    times: list[dict[str, list[float]]] = [{part: [] for part in one.parts} for one in timed]
    for _ in range(rounds):
        for one, found in zip(timed, times, strict=True):
            for name, seconds in one.parts.items():
                found[name].append(seconds(steps))
    about = {
        **limits,
        "rounds": rounds,
        "steps": steps,
        **environment.about(),
    }
    costs = [one.cost() for one in timed]
    rows = []
    for one, cost, found in zip(timed, costs, times, strict=True):
        compared = _against_first(found["step"], times[0]["step"], cost, costs[0])
        rows.append({**_figures(one, found, cost, limits["matmul_gflops"]), **compared, **about})
    return pd.DataFrame(rows)


def _figures(one: TimedCase, found: Mapping[str, Sequence[float]], cost: Cost, ceiling: float) -> dict[str, Any]:
    step = statistics.median(found["step"])
    return {
        **dataclasses.asdict(one.case),
        "hyperparameters": json.dumps(one.case.hyperparameters),
        "parameters": one.model.count_params(),
        **_split(found),
        "examples_per_second": round(one.case.batch / step, 1),
        "step_gflops": round(cost.flops / 1e9, 4),
        "step_mbytes": round(cost.bytes / 1e6, 2),
        "uncounted": " ".join(cost.uncounted),
        "matmul_share": round(cost.matmul_flops / step / 1e9 / ceiling, 4),
    }


def _against_first(steps: Sequence[float], first: Sequence[float], cost: Cost, first_cost: Cost) -> dict[str, Any]:
    ratios = [step / other for step, other in zip(steps, first, strict=True)]
    bound = _ALLOWED * max(cost.flops / first_cost.flops, cost.bytes / first_cost.bytes)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_low": round(min(ratios), 4),
        "ratio_high": round(max(ratios), 4),
        "bound": round(bound, 4),
        "within_bound": statistics.median(ratios) <= bound,
    }


def _split(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Milliseconds of a step and of what it is made of."""
    median = {name: statistics.median(times) * 1e3 for name, times in found.items()}
    parts = {
        "step_ms": median["step"],
        "input_ms": median["input"],
        "embedding_ms": median["embedding"],
        "forward_ms": median["forward"],
        "backward_ms": median["gradients"] - median["forward"],
        "update_ms": median["step"] - median["gradients"],
    }
    return {name: round(value, 3) for name, value in parts.items()}


def _use_logical_cpus(count: int) -> None:
    """Splits the processor into devices, for a MirroredStrategy over them."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ValueError(
            "`--mirrored` must be asked for before TensorFlow starts, in a process of its own. Received: "
            f"--mirrored {count}"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Times training steps in turn.")
    parser.add_argument("--models", nargs="+", default=["mmoe"], help="names of list_models()")
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[10_000, 100_000], help="ids of each feature")
    parser.add_argument("--optimizers", nargs="+", default=["auto"], help="names that compile takes")
    parser.add_argument("--batch", nargs="+", type=int, default=[1024], help="rows a step")
    parser.add_argument("--features", nargs="+", type=int, default=[30], help="categorical features")
    parser.add_argument("--numerics", type=int, default=10)
    parser.add_argument("--steps-per-execution", type=int, default=1, metavar="N", help="of Keras' train function")
    parser.add_argument("--mirrored", type=int, default=1, metavar="N", help="MirroredStrategy over N logical CPUs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of times, a process for each case")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of what the steps are made of")
    return parser


def _cases(args: argparse.Namespace) -> list[SpeedCase]:
    given: dict[str, Any] = parse_assignments("--set", args.set)
    return [
        SpeedCase(
            model,
            vocabulary,
            optimizer,
            batch,
            features,
            args.numerics,
            hyperparameters=given,
            replicas=args.mirrored,
            steps_per_execution=args.steps_per_execution,
        )
        for optimizer in args.optimizers
        for model in args.models
        for features in args.features
        for batch in args.batch
        for vocabulary in args.vocabulary
    ]


def speed_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.speed`; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.memory and (args.plot or args.mirrored > 1):
        parser.error("--memory goes with neither --plot nor --mirrored")
    cases = _cases(args)
    if args.mirrored > 1:
        _use_logical_cpus(args.mirrored)
    if args.memory:
        table, (_, (title, columns)) = measure_memory(cases, steps=args.steps), _SHOWN.items()
    else:
        table, ((title, columns), _) = measure(cases, rounds=args.rounds, steps=args.steps), _SHOWN.items()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    if args.plot:
        draw_steps(table, args.plot)
    _show(table, title, columns)
    return 0


def _show(table: pd.DataFrame, title: str, columns: Sequence[str]) -> None:
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column.removesuffix("_ms").removeprefix("step_"), justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        cells = {column: str(row[column]) for column in columns}
        if "ratio" in cells:
            cells["ratio"] = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        shown.add_row(*cells.values())
    Console(width=180).print(shown)
