"""What balancing costs: the time and the memory of a training step with each method, against the plain sum.

All methods train one model in turn, round by round in one process, so that a ratio compares neighbours in time.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.studies import _frame as frame
from benchmarks.studies._steps import Case, touch_slots
from benchmarks.studies.memory import transient_mb
from mtl_zoo.balancing import Balancing, as_balancing, create_balancing, label_of, list_balancing
from mtl_zoo.balancing._shared import shared_sizes
from mtl_zoo.benchmark.config import EQUAL, parse_assignments
from mtl_zoo.tasks import label_names

_BATCHES = 8
# What a step may take against the plain sum's: with a method of losses, with a second evaluation, more for each task.
LOSSES_ALLOWED, REEVALUATED_ALLOWED, ALLOWED_BY_TASK = 1.1, 1.5, 0.45
# Copies of the dense shared weights that a method may hold, by task.
COPIES_ALLOWED = 2


def every_method(tasks: Sequence[str]) -> list[Balancing]:
    """Each registered method with its defaults, and FAMO as in its paper, for losses of these names."""
    given = {"data_based": {"frequencies": dict.fromkeys(tasks, 0.2)}}
    found = [create_balancing(name, **given.get(name, {})) for name in list_balancing()]
    return [*found, create_balancing("famo", reevaluates=True)]


def measure(
    case: Case, methods: Sequence[str | Balancing] | None, rounds: int = 5, steps: int = 10
) -> list[dict[str, Any]]:
    """Times a model's step with the plain sum and with each method, in turn: a row for each, the plain sum first.

    Columns: the fields of the case; `method`, `kind` ("losses", "reevaluated", "gradients"); `step_ms`, the median over
    the rounds; `ratio`, the median over rounds of the step against the plain sum's in the same round, with its range;
    `allowed` and `within`; `dense_shared`, how many parameters several losses share, tables aside; `state_mb`, what the
    method keeps; `transient_mb`, how far a step raises the memory of the process (Linux only; the median of three);
    `extra_mb`, the state and what the step takes beyond the plain sum's; `allowed_mb` and `within_mb`.

    A step is the whole of it: forward, gradients, solver, the optimizer's update of weights and tables.
    """
    import tensorflow as tf

    model = case.build()
    touch_slots(model)
    given = every_method(model.loss_names) if methods is None else [as_balancing(method) for method in methods]
    draws = [tf.nest.map_structure(tf.constant, case.draw(case.batch, seed)) for seed in range(_BATCHES)]
    batches = itertools.cycle(draws)
    runs = [_Run(model, method, batches) for method in (None, *given)]
    times = [[one.seconds(steps) for one in runs] for _ in range(rounds)]
    transients = [[transient_mb(one.step) for one in runs] for _ in range(3)]
    dense = sum(shared_sizes(model, label_names(model.tasks)))
    allowed_mb = COPIES_ALLOWED * case.num_tasks * dense * 4 / 1e6
    rows = []
    for place, one in enumerate(runs):
        compared = frame.ratios([found[place] for found in times], [found[0] for found in times])
        transient, plain = (statistics.median(found[i] for found in transients) for i in (place, 0))
        extra, allowed = one.state_mb + transient - plain, one.allowed(case.num_tasks)
        rows.append(
            {
                **case.columns,
                **{"method": one.name, "kind": one.kind},
                "step_ms": round(1e3 * statistics.median(found[place] for found in times), 3),
                **compared,
                **{"allowed": allowed, "within": compared["ratio"] <= allowed, "dense_shared": dense},
                **{"state_mb": round(one.state_mb, 3), "transient_mb": round(transient, 2)},
                **{"extra_mb": round(extra, 2), "allowed_mb": round(allowed_mb, 2), "within_mb": extra <= allowed_mb},
                **{"rounds": rounds, "steps": steps},
            }
        )
    return rows


class _Run:
    """The step of one method. All methods share the model's weights, and its optimizer."""

    def __init__(self, model: Any, method: Balancing | None, batches: Any):
        import tensorflow as tf

        model.compile(model.optimizer, metrics=None, balancing=method)
        # The model forgets its method with the next one; the traced step needs its variables.
        self.method, self._batches = model.balancing, batches
        self.name = EQUAL if method is None else label_of(method)
        weights = [] if method is None else self.method.weights
        self.state_mb = sum(4 * weight.value.shape.num_elements() for weight in weights) / 1e6
        self._step: Callable = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
        self.seconds(2)

    @property
    def kind(self) -> str:
        if self.method is None or not self.method.needs_task_gradients:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.balancing_cost`."""
    options = {"tasks": (2, 4, 8), "model": "mmoe", "vocabulary": 100_000, "features": 10, "numerics": 10}
    options |= {"batch": 1024, "rounds": 5, "steps": 10}
    parser = frame.parser(__doc__, options, out="where the rows go, anew")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="names of list_balancing(); default: all")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    args = parser.parse_args(arguments)
    sizes = {name: getattr(args, name) for name in ("batch", "features", "numerics")}
    rows: list[dict[str, Any]] = []
    columns = ("num_tasks", "method", "step_ms", "ratio", "allowed", "within", "state_mb", "transient_mb", "extra_mb")
    for tasks in args.tasks:
        hyperparameters: dict[str, Any] = parse_assignments("--set", args.set)
        case = Case(args.model, args.vocabulary, hyperparameters=hyperparameters, num_tasks=tasks, **sizes)
        rows += measure(case, args.methods, args.rounds, args.steps)
        # After every case: a run that is cut keeps what it has.
        table = frame.write(args.out, rows)
        frame.show(table[table["num_tasks"] == tasks], (*columns, "allowed_mb", "within_mb"))
        keras.backend.clear_session()
    return 0


if __name__ == "__main__":
    frame.start(__file__)
