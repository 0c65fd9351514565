"""What a training step costs: by model, vocabulary, batch and optimizer, beside the machine's own ceilings.

Cases are timed in turn, round by round in one process, so that a ratio compares neighbours in time; absolute times of a
shared machine compare nothing. Batches lie in memory: the cost of input is not part of a step.
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
from keras import ops
from rich.console import Console
from rich.table import Table

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.config import parse_assignments
from mtl_zoo.benchmark.runner import resolve_hyperparameters
from mtl_zoo.features.spec import FIRST_ID, Categorical, Feature, Numeric
from mtl_zoo.models import create_model
from mtl_zoo.tasks import BinaryTask

_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class SpeedCase:
    """One thing to time.

    Args:
        model: A name of `list_models()`.
        vocabulary: Ids of each categorical feature.
        optimizer: What `compile` takes by name: `"auto"` reads and writes rows, `"adam"` is Keras' own.
        batch: Rows a step.
        features: Categorical features; their ids are uniform, so that hardly any row is hot.
        numerics: Numeric features.
        dim: Width of an embedding.
        hyperparameters: Arguments of the model.
    """

    model: str
    vocabulary: int
    optimizer: str = "auto"
    batch: int = 1024
    features: int = 30
    numerics: int = 10
    dim: int = 16
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for argument in ("vocabulary", "batch", "features", "dim"):
            check.check_int(argument, getattr(self, argument))
        check.check_int("numerics", self.numerics, minimum=0)


class _Timed:
    """A compiled model with its batches, and its step in three lengths: forward, with gradients, whole."""

    def __init__(self, case: SpeedCase):
        import tensorflow as tf

        features: list[Feature] = [
            Categorical(f"id_{i}", size=case.vocabulary, dim=case.dim) for i in range(case.features)
        ]
        features += [Numeric(f"number_{i}", normalization=None) for i in range(case.numerics)]
        tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
        arguments = resolve_hyperparameters(case.model, case.hyperparameters)
        self.model = model = create_model(case.model, features, tasks, **arguments)
        model.compile(case.optimizer, metrics=None)
        model.optimizer.build(model.trainable_variables)
        for variable in model.optimizer.variables:
            # The first write to a page costs more than any later one, and is no part of a step.
            variable.assign(ops.zeros_like(variable.value))
        rng = np.random.default_rng(0)
        self.batches = [_batch(rng, case) for _ in range(_BATCHES)]
        self._next = itertools.cycle(self.batches)

        @tf.function
        def forward(x, y):
            return model.compute_loss(x, y, model(x, training=True))

        @tf.function
        def with_gradients(x, y):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            return tf.nest.flatten(gradients, expand_composites=True)

        @tf.function
        def whole(x, y):
            return model.train_step((x, y))

        self.parts: dict[str, Callable] = {"forward": forward, "gradients": with_gradients, "step": whole}
        for part in self.parts.values():
            self.seconds(part, 2)

    def seconds(self, part: Callable, steps: int) -> float:
        """Mean seconds of `part` over `steps` batches."""
        started = time.perf_counter()
        for _ in range(steps):
            result = part(*next(self._next))
        for tensor in keras.tree.flatten(result):
            np.asarray(tensor)
        return (time.perf_counter() - started) / steps

    @property
    def matrix_flops(self) -> float:
        """Floating-point operations of the matrix products of a step: 2 a weight and row forward, 4 backward."""
        batch = len(self.batches[0][1]["click"])
        weights = sum(
            int(np.prod(v.shape))
            for v in self.model.trainable_variables
            if len(v.shape) > 1 and not _backend.is_table(v)
        )
        return 6.0 * weights * batch


def _batch(rng, case):
    import tensorflow as tf

    inputs = {f"id_{i}": rng.integers(FIRST_ID, FIRST_ID + case.vocabulary, case.batch) for i in range(case.features)}
    inputs = {name: tf.constant(ids, "int32") for name, ids in inputs.items()}
    inputs |= {f"number_{i}": tf.constant(rng.normal(size=case.batch), "float32") for i in range(case.numerics)}
    labels = {name: tf.constant(rng.random(case.batch) < 0.2, "float32") for name in ("click", "conversion")}
    return inputs, labels


def ceilings(seconds: float = 0.5) -> dict[str, float]:
    """What this machine can do, with TensorFlow: float32 matrix products, copies, and gathers of random 64-byte rows.

    Returns:
        `matmul_gflops` (1024 x 512 x 1024), `copy_gbytes` and `gather_gbytes` (bytes read, a second).
    """
    import tensorflow as tf

    left, right = tf.random.normal((1024, 512)), tf.random.normal((512, 1024))
    block, table = tf.random.normal((64, 1024, 1024)), tf.random.normal((4_000_000, 16))
    ids = tf.random.uniform((200_000,), 0, 4_000_000, "int32")
    work = {
        "matmul_gflops": (tf.function(lambda: tf.matmul(left, right)), 2 * 1024 * 512 * 1024),
        "copy_gbytes": (tf.function(lambda: block + 0.0), block.shape.num_elements() * 4),
        "gather_gbytes": (tf.function(lambda: tf.gather(table, ids)), 200_000 * 64),
    }
    found = {}
    for name, (run, amount) in work.items():
        run()
        best, ends = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < ends:
            started = time.perf_counter()
            run().numpy()
            best = min(best, time.perf_counter() - started)
        found[name] = round(amount / best / 1e9, 2)
    return found


def measure(cases: Sequence[SpeedCase], *, rounds: int = 5, steps: int = 20) -> pd.DataFrame:
    """Times the cases in turn: a row for each, with medians over the rounds.

    Columns: the case's fields, `parameters`, `step_ms`, its parts `forward_ms`, `backward_ms` and `update_ms`
    (differences of medians), `examples_per_second`, `matmul_share` (of the ceiling, for the matrix products alone),
    `ratio` (median over rounds of this case's step against the first case's in the same round) with `ratio_low` and
    `ratio_high`, the ceilings, and what the figures depend on.

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
    timed = [_Timed(case) for case in cases]
    times: list[dict[str, list[float]]] = [{part: [] for part in one.parts} for one in timed]
    for _ in range(rounds):
        for one, found in zip(timed, times, strict=True):
            for name, part in one.parts.items():
                found[name].append(one.seconds(part, steps))
    commit, dirty = environment.commit()
    about = {
        **limits,
        "rounds": rounds,
        "steps": steps,
        "commit": commit,
        "dirty": dirty,
        "versions": json.dumps(environment.versions_of_result()),
        "hardware": environment.hardware(),
    }
    rows = []
    for case, one, found in zip(cases, timed, times, strict=True):
        ratios = [step / first for step, first in zip(found["step"], times[0]["step"], strict=True)]
        forward, gradients, step = (statistics.median(found[name]) for name in ("forward", "gradients", "step"))
        rows.append(
            {
                **dataclasses.asdict(case),
                "hyperparameters": json.dumps(case.hyperparameters),
                "parameters": one.model.count_params(),
                "step_ms": round(step * 1e3, 3),
                "forward_ms": round(forward * 1e3, 3),
                "backward_ms": round((gradients - forward) * 1e3, 3),
                "update_ms": round((step - gradients) * 1e3, 3),
                "examples_per_second": round(case.batch / step, 1),
                "matmul_share": round(one.matrix_flops / step / 1e9 / limits["matmul_gflops"], 4),
                "ratio": round(statistics.median(ratios), 4),
                "ratio_low": round(min(ratios), 4),
                "ratio_high": round(max(ratios), 4),
                **about,
            }
        )
    return pd.DataFrame(rows)


def speed_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.speed`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Times training steps in turn.")
    parser.add_argument("--models", nargs="+", default=["mmoe"], help="names of list_models()")
    parser.add_argument("--vocabulary", nargs="+", type=int, default=[10_000, 100_000], help="ids of each feature")
    parser.add_argument("--optimizers", nargs="+", default=["auto"], help="names that compile takes")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--numerics", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    args = parser.parse_args(arguments)
    given = parse_assignments("--set", args.set)
    cases = [
        SpeedCase(model, vocabulary, optimizer, args.batch, args.features, args.numerics, hyperparameters=given)
        for optimizer in args.optimizers
        for model in args.models
        for vocabulary in args.vocabulary
    ]
    table = measure(cases, rounds=args.rounds, steps=args.steps)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    shown = Table(title="steps, in turn; ratio against the first row")
    columns = ("model", "vocabulary", "optimizer", "step_ms", "forward_ms", "backward_ms", "update_ms", "matmul_share")
    for column in (*columns, "ratio"):
        shown.add_column(column, justify="right")
    for row in table.to_dict("records"):
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        shown.add_row(*(str(row[column]) for column in columns), ratio)
    Console(width=120).print(shown)
    return 0
