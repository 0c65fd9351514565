"""What balancing costs: the time and the memory of a training step with each method, against the plain sum.

All methods train one model in turn, round by round in one process, so that a ratio compares neighbours in time.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.balancing import Balancing, LossBalancing, as_balancing, create_balancing, label_of, list_balancing
from mtl_zoo.balancing._shared import shared_sizes
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.config import EQUAL, parse_assignments
from mtl_zoo.benchmark.memory import transient_mb
from mtl_zoo.benchmark.speed_case import SpeedCase, build_model, draw_rows, touch_slots
from mtl_zoo.tasks import label_names

_BATCHES = 8
# What a step may take against the plain sum's.
LOSSES_ALLOWED, REEVALUATED_ALLOWED, ALLOWED_BY_TASK = 1.1, 1.5, 0.45
# Copies of the dense shared weights that a method may hold, by task.
COPIES_ALLOWED = 2
_SHOWN = (
    *("num_tasks", "method", "step_ms", "ratio", "ratio_low", "ratio_high", "allowed", "within"),
    *("state_mb", "transient_mb", "extra_mb", "allowed_mb", "within_mb"),
)


def every_method(tasks: Sequence[str]) -> list[Balancing]:
    """Each registered method with its defaults, and FAMO as in its paper, for losses of these names."""
    given = {"data_based": {"frequencies": dict.fromkeys(tasks, 0.2)}}
    found = [create_balancing(name, **given.get(name, {})) for name in list_balancing()]
    return [*found, create_balancing("famo", reevaluates=True)]


def measure_balancing(
    case: SpeedCase, methods: Sequence[str | Balancing] | None = None, *, rounds: int = 5, steps: int = 10
) -> pd.DataFrame:
    """Times a model's step with the plain sum and with each method, in turn: a row for each, the plain sum first.

    Columns: the fields of the case; `method`, `kind` ("losses", "reevaluated", "gradients"); `step_ms`, the median over
    the rounds; `ratio`, the median over rounds of the step against the plain sum's in the same round, with `ratio_low`
    and `ratio_high`; `allowed` and `within`; `dense_shared`, how many parameters several losses share, tables aside;
    `state_mb`, what the method keeps; `transient_mb`, how far a step raises the memory of the process (measured, Linux
    only; the median of three); `extra_mb`, the state and what the step takes beyond the plain sum's; `allowed_mb` and
    `within_mb`; and what the figures depend on.

    A step is the whole of it: forward, gradients, solver, the optimizer's update of weights and tables.

    Args:
        case: The model and its sizes; one replica.
        methods: Names, or methods. None: all that are registered, and FAMO with its second evaluation.
        rounds: How often each has its turn.
        steps: Steps a turn.

    Raises:
        ValueError: The backend is not TensorFlow; several replicas.
    """
    if not _backend.is_tensorflow():
        raise ValueError(f"`measure_balancing` needs the TensorFlow backend. Received: {keras.backend.backend()!r}")
    if case.replicas > 1 or case.steps_per_execution > 1:
        raise ValueError(
            "`case` must have one replica and one step a call. "
            f"Received: replicas={case.replicas}, steps_per_execution={case.steps_per_execution}"
        )
    check.check_int("rounds", rounds)
    check.check_int("steps", steps)
    model = build_model(case)
    touch_slots(model)
    given = every_method(model.loss_names) if methods is None else [as_balancing(method) for method in methods]
    batches = itertools.cycle([_tensors(draw_rows(case, case.batch, seed)) for seed in range(_BATCHES)])
    runs = [_Run(model, method, batches) for method in (None, *given)]
    times = [[run.seconds(steps) for run in runs] for _ in range(rounds)]
    transients = [[transient_mb(run.step) for run in runs] for _ in range(3)]
    dense = sum(shared_sizes(model, label_names(model.tasks)))
    about = {
        "rounds": rounds,
        "steps": steps,
        **environment.about(),
    }
    rows = []
    for place, run in enumerate(runs):
        ratios = [found[place] / found[0] for found in times]
        transient, plain = (statistics.median(found[i] for found in transients) for i in (place, 0))
        extra = run.state_mb + transient - plain
        allowed_mb = COPIES_ALLOWED * case.num_tasks * dense * 4 / 1e6
        rows.append(
            {
                **dataclasses.asdict(case),
                "hyperparameters": json.dumps(case.hyperparameters),
                "method": run.name,
                "kind": run.kind,
                "step_ms": round(1e3 * statistics.median(found[place] for found in times), 3),
                "ratio": round(statistics.median(ratios), 4),
                "ratio_low": round(min(ratios), 4),
                "ratio_high": round(max(ratios), 4),
                "allowed": run.allowed(case.num_tasks),
                "within": statistics.median(ratios) <= run.allowed(case.num_tasks),
                "dense_shared": dense,
                "state_mb": round(run.state_mb, 3),
                "transient_mb": round(transient, 2),
                "extra_mb": round(extra, 2),
                "allowed_mb": round(allowed_mb, 2),
                "within_mb": extra <= allowed_mb,
                **about,
            }
        )
    return pd.DataFrame(rows)


class _Run:
    """The step of one method. All methods share the model's weights, and its optimizer."""

    def __init__(self, model: Any, method: Balancing | None, batches: Any):
        import tensorflow as tf

        model.compile(model.optimizer, metrics=None, balancing=method)
        # The model forgets its method with the next one; the traced step needs its variables.
        self.method, self._batches = model.balancing, batches
        self.name = EQUAL if method is None else label_of(method)
        self.state_mb = (
            0.0 if method is None else sum(4 * v.value.shape.num_elements() for v in self.method.weights) / 1e6
        )
        self._step: Callable = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
        self.seconds(2)

    @property
    def kind(self) -> str:
        if self.method is None or isinstance(self.method, LossBalancing):
            return "reevaluated" if getattr(self.method, "reevaluates", False) else "losses"
        return "gradients"

    def allowed(self, tasks: int) -> float:
        allowed = {"losses": LOSSES_ALLOWED, "reevaluated": REEVALUATED_ALLOWED}
        return allowed.get(self.kind, 1 + ALLOWED_BY_TASK * tasks)

    def step(self) -> None:
        for value in self._step(*next(self._batches)).values():
            np.asarray(value)

    def seconds(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - started) / steps


def _tensors(rows: Any) -> Any:
    import tensorflow as tf

    return tf.nest.map_structure(tf.constant, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.balancing_cost", description="Times steps with balancing methods in turn."
    )
    parser.add_argument("--tasks", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="names of list_balancing(); default: all")
    parser.add_argument("--model", default="mmoe", help="a name of list_models()")
    parser.add_argument("--vocabulary", type=int, default=100_000, help="ids of each feature")
    parser.add_argument("--features", type=int, default=10, help="categorical features")
    parser.add_argument("--numerics", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1024, help="rows a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    return parser


def balancing_cost_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.balancing_cost`; returns the exit code."""
    args = _parser().parse_args(arguments)
    hyperparameters: dict[str, Any] = parse_assignments("--set", args.set)
    console, tables = Console(width=180), []
    for tasks in args.tasks:
        case = SpeedCase(
            args.model,
            args.vocabulary,
            batch=args.batch,
            features=args.features,
            numerics=args.numerics,
            hyperparameters=hyperparameters,
            num_tasks=tasks,
        )
        tables.append(measure_balancing(case, args.methods, rounds=args.rounds, steps=args.steps))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        # After every case: a run that is cut keeps what it has.
        pd.concat(tables).to_csv(args.out, index=False)
        _show(tables[-1], console)
        keras.backend.clear_session()
    return 0


def _show(table: pd.DataFrame, console: Console) -> None:
    shown = Table(title="steps, in turn; ratio against the plain sum")
    for column in _SHOWN:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        shown.add_row(*(str(row[column]) for column in _SHOWN))
    console.print(shown)
