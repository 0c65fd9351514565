"""What workers send one another in a step of training: bytes measured on this machine, beside those of `traffic`.

Each worker is a process of a local cluster, with one thread for an operation. What crosses the loopback interface while
they train is counted there, protocol included, so nothing else may use it: on Linux as root, `unshare --net` gives a
command an interface of its own. Times are of turns: worker 0 alone on its batch, without a strategy, then all together.
On a busy machine seconds of the processor say more than those of the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console

from mtl_zoo import _backend, _distribute
from mtl_zoo import _validation as check
from mtl_zoo.balancing import LossBalancing
from mtl_zoo.balancing._shared import shared_sizes
from mtl_zoo.benchmark import environment
from mtl_zoo.benchmark.results import append_row
from mtl_zoo.benchmark.runner import resolve_hyperparameters
from mtl_zoo.benchmark.speed_case import SpeedCase, draw_rows
from mtl_zoo.benchmark.traffic import StepSizes, all_reduce_bytes, collectives
from mtl_zoo.models import create_model
from mtl_zoo.optimizers._rows import RowUpdates
from mtl_zoo.tasks import label_names
from mtl_zoo.training.launch import launch

_MMOE = {"num_experts": 8, "expert_units": [128, 64], "tower_units": [32]}
# Batches that take turns, and steps before anything is counted: the first makes slots, and a connection for each pair.
_BATCHES, _WARM = 4, 3
# Seconds in which nothing should cross the interface, and what else does is seen.
_SILENCE = 0.5
_COUNTED = ("dense", "sparse", "balancing", "metrics", "scalars")
COLUMNS = (
    *(
        "varies",
        "workers",
        "balancing",
        "metrics",
        "optimizer",
        "accumulate",
        "vocabulary",
        "batch",
        "features",
        "dim",
        "tasks",
    ),
    *("expert_units", "dense", "shared", "ids", "rows", "metric_values", "collectives"),
    *("steps", "sent", "model", "ratio"),
    *(f"model_{part}" for part in _COUNTED),
    *("other_traffic", "alone_ms", "together_ms", "share", "share_low", "share_high"),
    *("alone_cpu_ms", "together_cpu_ms", "cpu_share", "rounds", "load"),
    *("commit", "dirty", "versions", "hardware"),
)


@dataclasses.dataclass(frozen=True)
class CommunicationCase:
    """One thing to measure.

    Args:
        varies: What it differs in from the standard case, as a word.
        speed: Model and sizes; its batch is that of one worker.
        balancing: Name of a balancing method, or "".
        metrics: Whether the tasks' metrics are kept while training.
        accumulate: Steps whose gradients Keras' Adam adds up; 1 is the case's own optimizer.
        times: Whether worker 0 also trains alone, in turns with all.
    """

    varies: str
    speed: SpeedCase
    balancing: str = ""
    metrics: bool = False
    accumulate: int = 1
    times: bool = False

    def encode(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def decode(cls, text: str) -> CommunicationCase:
        given = json.loads(text)
        return cls(**{**given, "speed": SpeedCase(**given["speed"])})


def all_cases() -> list[CommunicationCase]:
    """MMoE with 30 categorical features x 16 and a batch of 1,024, and one thing changed at a time."""

    def case(varies, balancing="", metrics=False, accumulate=1, times=False, **changes):
        about = {"model": "mmoe", "vocabulary": 10_000, "hyperparameters": _MMOE, **changes}
        return CommunicationCase(varies, SpeedCase(**about), balancing, metrics, accumulate, times)

    def widths(*units):
        return {"hyperparameters": {**_MMOE, "expert_units": list(units)}}

    return [
        case("standard", times=True),
        *(case("dense", **widths(*units)) for units in ((32, 16), (512, 256))),
        *(case("batch", batch=batch) for batch in (128, 512, 4096)),
        *(case("width", dim=dim) for dim in (4, 64)),
        *(case("tasks", num_tasks=tasks) for tasks in (4, 8)),
        *(case("vocabulary", vocabulary=ids) for ids in (1_000, 100_000)),
        *(case("vocabulary", vocabulary=ids, optimizer="adam") for ids in (1_000, 10_000, 100_000)),
        *(case("accumulate", vocabulary=ids, accumulate=2) for ids in (1_000, 10_000)),
        case("balancing", "pcgrad"),
        case("balancing", "pcgrad", num_tasks=8),
        case("balancing", "famo"),
        case("metrics", metrics=True),
    ]


def different_ids(case: SpeedCase, workers: int) -> int:
    """Different ids in a worker's batch, the most among the workers; the mean of the batches that take turns."""

    def of_batch(seed):
        columns, _ = draw_rows(case, case.batch, seed)
        return sum(len(np.unique(column)) for column in columns.values() if column.dtype.kind == "i")

    turns = [[turn * workers + worker for worker in range(workers)] for turn in range(_BATCHES)]
    return round(statistics.mean(max(map(of_batch, seeds)) for seeds in turns))


def step_sizes(model: Any, case: CommunicationCase, workers: int = 1) -> StepSizes:
    """The sizes of one worker's step, read from a model.

    Raises:
        ValueError: A balancing method whose gradients are of a layer or of the representation.
    """
    # Gradients that wait for others are as large as the table.
    speed, adds_up = case.speed, case.accumulate > 1
    dense = [v for v in model.trainable_variables if adds_up or not _backend.is_table(v)]
    method = model.balancing
    if getattr(method, "taken_of", "weight") != "weight":
        raise ValueError(
            "`balancing` must be a method of losses, or of the gradients of all shared weights: what others send is no "
            f"part of the model. Received: balancing={case.balancing!r}"
        )
    by_task = method is not None and not isinstance(method, LossBalancing)
    by_row = isinstance(model.optimizer, RowUpdates)  # others send duplicates too
    return StepSizes(
        dense=sum(math.prod(v.shape) for v in dense),
        ids=0 if adds_up else speed.batch * speed.features,
        width=speed.dim,
        unique=different_ids(speed, workers) if by_row and not adds_up else None,
        tasks=len(model.loss_names),
        shared=sum(shared_sizes(model, label_names(model.tasks))) if by_task else 0,
        by_task=by_task,
        weighed=method is not None and not by_task,
        metrics=sum(math.prod(v.shape) for metric in model.metrics for v in metric.variables),
        inputs=speed.batch * (speed.features + speed.numerics + len(label_names(model.tasks))),
        every=case.accumulate,
    )


# Inside of a worker.


class _Trained:
    """A model of a case on a strategy, and its batches."""

    def __init__(self, case: CommunicationCase, strategy: Any):
        self._strategy, speed = strategy, case.speed
        keras.utils.set_random_seed(0)
        with strategy.scope():
            options = resolve_hyperparameters(speed.model, speed.hyperparameters)
            self.model = create_model(speed.model, speed.specs(), speed.tasks, **options)
            metrics = "auto" if case.metrics else None
            optimizer = speed.optimizer
            if case.accumulate > 1:
                optimizer = keras.optimizers.Adam(gradient_accumulation_steps=case.accumulate)
            self.model.compile(optimizer, balancing=case.balancing or None, metrics=metrics)
            self.model.optimizer.build(self.model.trainable_variables)
        self.step = _distribute.step_function(self.model, self.model.train_step, training=True)
        self.batches = [self._batch(speed, seed) for seed in range(_BATCHES)]
        self._turns = itertools.cycle(self.batches)
        self.train(_WARM + 1)  # an even number: gradients of two steps add up

    def _batch(self, speed, seed):
        import tensorflow as tf

        replicas = self._strategy.num_replicas_in_sync

        def tensors(context):
            rows = draw_rows(speed, speed.batch, seed * replicas + context.replica_id_in_sync_group)
            return tf.nest.map_structure(tf.constant, rows)

        return self._strategy.experimental_distribute_values_from_function(tensors)

    def train(self, steps: int) -> tuple[float, float]:
        """Seconds a step, of the clock and of the processor."""
        started, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            logs = self.step(iter([next(self._turns)]))
        np.asarray(logs["loss"])
        return (time.perf_counter() - started) / steps, (time.process_time() - used) / steps


def sent_bytes(interface: str = "lo") -> int:
    """What was sent over a network interface since it is up (Linux)."""
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == interface:
            return int(figures.split()[8])
    raise ValueError(f"`interface` must be one of this machine. Received: interface={interface!r}")


def _inside(cases: Sequence[CommunicationCase], out: Path, steps: int, rounds: int) -> None:
    """What each worker does; the first writes a row a case."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for case in cases:
        row = _measure(case, strategy, steps, rounds)
        if row is not None:
            append_row(out, COLUMNS, row | environment.about())
        keras.backend.clear_session()


def _measure(case: CommunicationCase, strategy: Any, steps: int, rounds: int) -> dict[str, Any] | None:
    import tensorflow as tf

    together = _Trained(case, strategy)
    model, workers = together.model, _distribute.num_workers(together.model)
    is_chief = _distribute.worker_index(model) == 0
    sizes = step_sizes(model, case, workers)
    alone = _Trained(case, tf.distribute.get_strategy()) if is_chief and case.times else None

    def meet():
        _distribute.gather_rows(model, np.zeros((1, 1), "float32"))

    sent, silent, times, used = [], [], [], []
    for _ in range(rounds):
        # The others wait here, and take no time of the processor.
        own, own_used = alone.train(steps) if alone is not None else (math.nan, math.nan)
        meet()
        # Whatever the others still have to hear of the meeting.
        time.sleep(_SILENCE)
        before = sent_bytes()
        time.sleep(_SILENCE)
        silent.append((sent_bytes() - before) / _SILENCE)
        meet()
        together.train(case.accumulate)  # so that all begin at once
        before = sent_bytes()
        all_of_us, all_used = together.train(steps)
        sent.append((sent_bytes() - before) / steps / workers)
        times.append((own, all_of_us))
        used.append((own_used, all_used))
    if not is_chief:
        return None
    model_bytes = all_reduce_bytes(sizes, workers)
    total, measured = sum(model_bytes.values()), statistics.median(sent)
    speed = case.speed
    return {
        "varies": case.varies,
        "workers": workers,
        "accumulate": case.accumulate,
        "balancing": case.balancing,
        "metrics": case.metrics,
        "optimizer": speed.optimizer,
        **{name: getattr(speed, name) for name in ("vocabulary", "batch", "features", "dim")},
        "tasks": sizes.tasks,
        "expert_units": json.dumps(speed.hyperparameters.get("expert_units")),
        "dense": sizes.dense,
        "shared": sizes.shared,
        "ids": sizes.ids,
        "rows": sizes.rows,
        "metric_values": sizes.metrics,
        "collectives": collectives(sizes),
        "steps": steps,
        "sent": round(measured),
        "model": round(total),
        "ratio": round(measured / total, 4),
        **{f"model_{part}": round(model_bytes[part]) for part in _COUNTED},
        "other_traffic": round(statistics.median(silent)),
        **(_shares(times, used) if case.times else {}),
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
    }


def _shares(times: Sequence[tuple[float, float]], used: Sequence[tuple[float, float]]) -> dict[str, float]:
    """What a step of all takes beyond a step alone, by round, of the clock and of the processor."""

    def median_ms(values):
        return round(1000 * statistics.median(values), 2)

    shares = [1 - alone / together for alone, together in times]
    return {
        "alone_ms": median_ms(alone for alone, _ in times),
        "together_ms": median_ms(together for _, together in times),
        "share": round(statistics.median(shares), 3),
        "share_low": round(min(shares), 3),
        "share_high": round(max(shares), 3),
        "alone_cpu_ms": median_ms(alone for alone, _ in used),
        "together_cpu_ms": median_ms(together for _, together in used),
        "cpu_share": round(statistics.median(1 - alone / together for alone, together in used), 3),
    }


# Outside.


def measure_communication(
    workers: Sequence[int],
    cases: Sequence[CommunicationCase] | None = None,
    *,
    out: Path,
    steps: int = 10,
    rounds: int = 3,
    timeout: float = 3600.0,
) -> pd.DataFrame:
    """Trains each case on clusters of these sizes, and adds a row for each to a file.

    Columns: what `CommunicationCase` says, and the sizes of `StepSizes`; `collectives`, of `traffic.collectives`;
    `sent`, bytes a worker and step over the loopback interface (median of the rounds); `model`, those of
    `traffic.all_reduce_bytes`, with its parts, and `ratio`, the measured against them; `other_traffic`, bytes a second
    while nothing trains. Of cases with `times`: `alone_ms`, a step of worker 0 without a strategy, and `together_ms`,
    one of all workers, each with that batch (medians); `share`, 1 - alone / together in the same round (median, lowest
    and highest): communication, and what workers take of each other's processor; `alone_cpu_ms`, `together_cpu_ms` and
    `cpu_share`, the same in time of the processor that worker 0 takes; `load`, how many processes wanted a processor.

    Args:
        workers: Sizes of the clusters.
        cases: Default: `all_cases()`.
        out: The CSV file; logs of the workers lie beside it, in a folder.
        steps: Steps of a turn.
        rounds: Turns of a case.
        timeout: Seconds for a cluster.

    Raises:
        ValueError: `workers` has a number < 2; `steps` or `rounds` < 1.
        RuntimeError: A worker fails.
    """
    for count in workers:
        check.check_int("workers", count, minimum=2)
    check.check_int("steps", steps)
    check.check_int("rounds", rounds)
    out.parent.mkdir(parents=True, exist_ok=True)
    texts = [case.encode() for case in (all_cases() if cases is None else cases)]
    # As many threads for one worker as for each of several.
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for count in workers:
        inside = ["--inside", *texts, "--out", str(out), "--steps", str(steps), "--rounds", str(rounds)]
        command = [sys.executable, "-m", "mtl_zoo.benchmark.communication", *inside]
        logs = out.with_suffix(".logs")
        done = launch(command, workers=count, logs=logs, timeout=timeout, environment=one_thread)
        if done.code:
            raise RuntimeError(f"Workers failed: {'; '.join(done.failures)}. Their logs are in {logs}.")
    return pd.read_csv(out, keep_default_na=False)


def communication_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.communication`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.communication", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4], help="sizes of the clusters; default: 2 4")
    parser.add_argument("--varies", nargs="+", help="only the cases that differ in these: " + ", ".join(_kinds()))
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of a case")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="rows are added")
    parser.add_argument("--show", action="store_true", help="measure nothing: the rows of the file as Markdown")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.inside:
        _inside([CommunicationCase.decode(text) for text in args.inside], args.out, args.steps, args.rounds)
        return 0
    cases = [case for case in all_cases() if not args.varies or case.varies in args.varies]
    if args.show:
        found = pd.read_csv(args.out, keep_default_na=False)
    else:
        found = measure_communication(args.workers, cases, out=args.out, steps=args.steps, rounds=args.rounds)
    Console(width=160, soft_wrap=True).print("\n".join(markdown_lines(found)), highlight=False, markup=False)
    return 0


def markdown_lines(table: pd.DataFrame) -> list[str]:
    """A Markdown row for each row that was measured: what, workers, MB a worker and step, those of the model, ratio."""
    lines = []
    for row in table.to_dict("records"):
        parts = [f"{row[f'model_{part}'] / 1e6:.3f}" for part in ("dense", "sparse", "balancing")]
        sent = [f"{row[figure] / 1e6:.3f}" for figure in ("sent", "model")]
        lines.append(f"| {_describe(row)} | {row['workers']} | {' | '.join([*sent, *parts])} | {row['ratio']:.3f} |")
    return lines


def _describe(row: Mapping[Any, Any]) -> str:
    ids = f"{row['vocabulary']:,} ids a feature"
    optimizer = " with Keras' Adam" if row["optimizer"] == "adam" else ""
    words = {
        "standard": "standard",
        "dense": f"experts {tuple(json.loads(row['expert_units']))}",
        "batch": f"batch {row['batch']:,}",
        "width": f"width {row['dim']}",
        "tasks": f"{row['tasks']} tasks",
        "vocabulary": ids + optimizer,
        "accumulate": f"{ids}, gradients of {row['accumulate']} steps added up",
        "balancing": f"{row['balancing']}, {row['tasks']} tasks",
        "metrics": "metrics kept",
    }
    return words[row["varies"]]


def _kinds() -> list[str]:
    return list(dict.fromkeys(case.varies for case in all_cases()))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(communication_main())
