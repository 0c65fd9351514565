"""What workers send one another in a step of training: bytes measured on this machine, beside those of `_traffic`.

Each worker is a process of a local cluster, with one thread for an operation. What crosses the loopback interface while
they train is counted there, protocol included, so nothing else may use it: on Linux as root, `unshare --net` gives a
command an interface of its own. Times are of turns: worker 0 alone on its batch, without a strategy, then all together.
On a busy machine seconds of the processor say more than those of the clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.studies import _frame as frame
from benchmarks.studies._steps import Case
from benchmarks.studies._traffic import StepSizes, all_reduce_bytes, collectives
from mtl_zoo import _backend, _distribute
from mtl_zoo.balancing._shared import shared_sizes
from mtl_zoo.optimizers._rows import RowUpdates
from mtl_zoo.tasks import label_names

_MMOE = {"num_experts": 8, "expert_units": [128, 64], "tower_units": [32]}
# Batches that take turns, and steps before anything is counted: the first makes slots, and a connection for each pair.
_BATCHES, _WARM = 4, 3
# Seconds in which nothing should cross the interface, and what else does is seen.
_SILENCE = 0.5
_COUNTED = ("dense", "sparse", "balancing", "metrics", "scalars")
_COLUMNS = (
    *("varies", "workers", "balancing", "metrics", "optimizer", "accumulate", "vocabulary", "batch", "features", "dim"),
    *("tasks", "expert_units", "dense", "shared", "ids", "rows", "metric_values", "collectives"),
    *("steps", "sent", "model", "ratio", *(f"model_{part}" for part in _COUNTED)),
    *("other_traffic", "alone_ms", "together_ms", "share", "share_low", "share_high"),
    *("alone_cpu_ms", "together_cpu_ms", "cpu_share", "rounds", "load"),
)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One thing to measure.

    Args:
        varies: What it differs in from the standard case, as a word.
        case: Model and sizes; its batch is that of one worker.
        balancing: Name of a balancing method, or "".
        metrics: Whether the tasks' metrics are kept while training.
        accumulate: Steps whose gradients Keras' Adam adds up; 1 is the case's own optimizer.
        times: Whether worker 0 also trains alone, in turns with all.
    """

    varies: str
    case: Case
    balancing: str = ""
    metrics: bool = False
    accumulate: int = 1
    times: bool = False


def all_cases() -> list[Exchange]:
    """MMoE with 30 categorical features x 16 and a batch of 1,024, and one thing changed at a time."""

    def one(
        varies: str, balancing: str = "", metrics: bool = False, accumulate: int = 1, times: bool = False, **more: Any
    ) -> Exchange:
        about: dict[str, Any] = {"model": "mmoe", "vocabulary": 10_000, "hyperparameters": _MMOE, **more}
        return Exchange(varies, Case(**about), balancing, metrics, accumulate, times)

    return [
        one("standard", times=True),
        *(one("dense", hyperparameters={**_MMOE, "expert_units": units}) for units in ([32, 16], [512, 256])),
        *(one("batch", batch=batch) for batch in (128, 512, 4096)),
        *(one("width", dim=dim) for dim in (4, 64)),
        *(one("tasks", num_tasks=tasks) for tasks in (4, 8)),
        *(one("vocabulary", vocabulary=ids) for ids in (1_000, 100_000)),
        *(one("vocabulary", vocabulary=ids, optimizer="adam") for ids in (1_000, 10_000, 100_000)),
        *(one("accumulate", vocabulary=ids, accumulate=2) for ids in (1_000, 10_000)),
        one("balancing", "pcgrad"),
        one("balancing", "pcgrad", num_tasks=8),
        one("balancing", "famo"),
        one("metrics", metrics=True),
    ]


def different_ids(case: Case, workers: int) -> int:
    """Different ids in a worker's batch, the most among the workers; the mean of the batches that take turns."""

    def of_batch(seed: int) -> int:
        columns, _ = case.draw(case.batch, seed)
        return sum(len(np.unique(column)) for column in columns.values() if column.dtype.kind == "i")

    turns = [[turn * workers + worker for worker in range(workers)] for turn in range(_BATCHES)]
    return round(statistics.mean(max(map(of_batch, seeds)) for seeds in turns))


def step_sizes(model: Any, given: Exchange, workers: int = 1) -> StepSizes:
    """The sizes of one worker's step, read from a model."""
    # Gradients that wait for others are as large as the table.
    case, adds_up = given.case, given.accumulate > 1
    dense = [v for v in model.trainable_variables if adds_up or not _backend.is_table(v)]
    method = model.balancing
    if getattr(method, "taken_of", "weight") != "weight":
        raise ValueError(
            "`balancing` must be a method of losses, or of the gradients of all shared weights: what others send is no "
            f"part of the model. Received: balancing={given.balancing!r}"
        )
    by_task = method is not None and method.needs_task_gradients
    by_row = isinstance(model.optimizer, RowUpdates)  # others send duplicates too
    return StepSizes(
        dense=sum(math.prod(v.shape) for v in dense),
        ids=0 if adds_up else case.batch * case.features,
        width=case.dim,
        unique=different_ids(case, workers) if by_row and not adds_up else None,
        tasks=len(model.loss_names),
        shared=sum(shared_sizes(model, label_names(model.tasks))) if by_task else 0,
        by_task=by_task,
        weighed=method is not None and not by_task,
        metrics=sum(math.prod(v.shape) for metric in model.metrics for v in metric.variables),
        inputs=case.batch * (case.features + case.numerics + len(label_names(model.tasks))),
        every=given.accumulate,
    )


# Inside of a worker.


class _Trained:
    """A model on a strategy, and its batches."""

    def __init__(self, given: Exchange, strategy: Any):
        self._strategy, self._case = strategy, given.case
        keras.utils.set_random_seed(0)
        with strategy.scope():
            self.model = given.case.create()
            optimizer: Any = given.case.optimizer
            if given.accumulate > 1:
                optimizer = keras.optimizers.Adam(gradient_accumulation_steps=given.accumulate)
            metrics = "auto" if given.metrics else None
            self.model.compile(optimizer, balancing=given.balancing or None, metrics=metrics)
            self.model.optimizer.build(self.model.trainable_variables)
        self.step = _distribute.step_function(self.model, self.model.train_step, training=True)
        self._turns = itertools.cycle([self._batch(seed) for seed in range(_BATCHES)])
        self.train(_WARM + 1)  # an even number: gradients of two steps add up

    def _batch(self, seed: int) -> Any:
        import tensorflow as tf

        replicas = self._strategy.num_replicas_in_sync

        def tensors(context: Any) -> Any:
            rows = self._case.draw(self._case.batch, seed * replicas + context.replica_id_in_sync_group)
            return tf.nest.map_structure(tf.constant, rows)

        return self._strategy.experimental_distribute_values_from_function(tensors)

    def train(self, steps: int) -> tuple[float, float]:
        """Milliseconds a step, of the clock and of the processor."""
        started, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            logs = self.step(iter([next(self._turns)]))
        np.asarray(logs["loss"])
        return 1000 * (time.perf_counter() - started) / steps, 1000 * (time.process_time() - used) / steps


def sent_bytes(interface: str = "lo") -> int:
    """What was sent over a network interface since it is up (Linux)."""
    for line in Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == interface:
            return int(figures.split()[8])
    raise ValueError(f"`interface` must be one of this machine. Received: interface={interface!r}")


def _inside(cases: Sequence[Exchange], out: Path, steps: int, rounds: int) -> None:
    """What each worker does; the first writes a row a case."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for given in cases:
        row = _measure(given, strategy, steps, rounds)
        if frame.leads():
            frame.Rows(out, _COLUMNS).add(row)
        keras.backend.clear_session()


def _measure(given: Exchange, strategy: Any, steps: int, rounds: int) -> dict[str, Any]:
    import tensorflow as tf

    together = _Trained(given, strategy)
    model, workers = together.model, _distribute.num_workers(together.model)
    sizes = step_sizes(model, given, workers)
    alone = _Trained(given, tf.distribute.get_strategy()) if frame.leads() and given.times else None

    def meet() -> None:
        _distribute.gather_rows(model, np.zeros((1, 1), "float32"))

    sent, silent, times = [], [], []
    for _ in range(rounds):
        # The others wait here, and take no time of the processor.
        own = alone.train(steps) if alone is not None else (math.nan, math.nan)
        meet()
        # Whatever the others still have to hear of the meeting.
        time.sleep(_SILENCE)
        before = sent_bytes()
        time.sleep(_SILENCE)
        silent.append((sent_bytes() - before) / _SILENCE)
        meet()
        together.train(given.accumulate)  # so that all begin at once
        before = sent_bytes()
        ours = together.train(steps)
        sent.append((sent_bytes() - before) / steps / workers)
        times.append((*own, *ours))
    model_bytes = all_reduce_bytes(sizes, workers)
    total, measured = sum(model_bytes.values()), statistics.median(sent)
    case = given.case
    return {
        **{name: getattr(given, name) for name in ("varies", "accumulate", "balancing", "metrics")},
        **{name: getattr(case, name) for name in ("optimizer", "vocabulary", "batch", "features", "dim")},
        **{name: getattr(sizes, name) for name in ("tasks", "dense", "shared", "ids", "rows")},
        "expert_units": json.dumps(case.hyperparameters.get("expert_units")),
        **{"workers": workers, "metric_values": sizes.metrics, "collectives": collectives(sizes), "steps": steps},
        **{"sent": round(measured), "model": round(total), "ratio": round(measured / total, 4)},
        **{f"model_{part}": round(model_bytes[part]) for part in _COUNTED},
        "other_traffic": round(statistics.median(silent)),
        **(_shares(times) if given.times else {}),
        **{"rounds": rounds, "load": round(os.getloadavg()[0], 1)},
    }


def _shares(times: Sequence[tuple[float, float, float, float]]) -> dict[str, float]:
    """What a step of all takes beyond a step alone, by round, of the clock and of the processor."""
    names = ("alone_ms", "alone_cpu_ms", "together_ms", "together_cpu_ms")
    table = pd.DataFrame(list(times), columns=list(names))
    share = 1 - table["alone_ms"] / table["together_ms"]
    found = {name: round(table[name].median(), 2) for name in names}
    found |= {"share": share.median(), "share_low": share.min(), "share_high": share.max()}
    found |= {"cpu_share": (1 - table["alone_cpu_ms"] / table["together_cpu_ms"]).median()}
    return {name: round(float(value), 3) for name, value in found.items()}


# Outside.


def measure(workers: Sequence[int], cases: Sequence[Exchange], out: Path, steps: int, rounds: int) -> pd.DataFrame:
    """Trains each case on clusters of these sizes, and adds a row for each to a file, beside which the logs lie.

    Columns: what `Exchange` says, and the sizes of `StepSizes`; `collectives`, of `_traffic.collectives`; `sent`,
    bytes a worker and step over the loopback interface (median of the rounds); `model`, those of
    `_traffic.all_reduce_bytes`, with its parts, and `ratio`, the measured against them; `other_traffic`, bytes a second
    while nothing trains. Of cases with `times`: `alone_ms`, a step of worker 0 without a strategy, and `together_ms`,
    one of all workers, each with that batch (medians); `share`, 1 - alone / together in the same round (median, lowest
    and highest): communication, and what workers take of each other's processor; `alone_cpu_ms`, `together_cpu_ms` and
    `cpu_share`, the same in time of the processor that worker 0 takes; `load`, how many processes wanted a processor.
    """
    rows = frame.Rows(out, _COLUMNS)
    # As many threads for one worker as for each of several.
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for count in workers:
        logs = out.with_suffix(".logs")
        frame.run(_inside, cases, out, steps, rounds, workers=count, logs=logs, environ=one_thread, timeout=3600.0)
    return rows.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.communication`."""
    parser = frame.parser(__doc__, {"workers": (2, 4), "steps": 10, "rounds": 3, "show": False})
    parser.add_argument("--varies", nargs="+", help=f"only cases of: {', '.join({c.varies: 0 for c in all_cases()})}")
    args = parser.parse_args(arguments)
    cases = [given for given in all_cases() if not args.varies or given.varies in args.varies]
    if args.show:  # the rows that are there
        found = pd.read_csv(args.out, keep_default_na=False)
    else:
        found = measure(args.workers, cases, args.out, args.steps, args.rounds)
    Console(width=160, soft_wrap=True).print("\n".join(markdown_lines(found)), highlight=False, markup=False)
    return 0


def markdown_lines(table: pd.DataFrame) -> list[str]:
    """A Markdown row for each row that was measured: what, workers, MB a worker and step, those of the model, ratio."""
    figures = ("sent", "model", "model_dense", "model_sparse", "model_balancing")
    return [
        f"| {_describe(row)} | {row['workers']} | {' | '.join(f'{row[f] / 1e6:.3f}' for f in figures)} "
        f"| {row['ratio']:.3f} |"
        for row in table.to_dict("records")
    ]


def _describe(row: Mapping[Any, Any]) -> str:
    ids = f"{row['vocabulary']:,} ids a feature"
    words = {
        "standard": "standard",
        "dense": f"experts {tuple(json.loads(row['expert_units']))}",
        "batch": f"batch {row['batch']:,}",
        "width": f"width {row['dim']}",
        "tasks": f"{row['tasks']} tasks",
        "vocabulary": ids + (" with Keras' Adam" if row["optimizer"] == "adam" else ""),
        "accumulate": f"{ids}, gradients of {row['accumulate']} steps added up",
        "balancing": f"{row['balancing']}, {row['tasks']} tasks",
        "metrics": "metrics kept",
    }
    return words[row["varies"]]


if __name__ == "__main__":
    frame.start(__file__)
