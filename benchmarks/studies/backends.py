"""A training step on JAX beside the same one on TensorFlow, and what updates by row are worth on each.

    python -m benchmarks.studies.backends --out benchmarks/results/speed/backends.csv

A process for each backend and optimizer trains one model by `fit` on the same rows in memory, some steps at a time, in
turns. `auto` touches the rows of the batch only; `adam` is Keras', which walks whole tables. Ratios compare turns of
one round with those of TensorFlow with `auto`: above 1 is slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import _frame as frame
from benchmarks.studies._turns import Worker, serve, take_turns

CONTESTANTS = (("tensorflow", "auto"), ("jax", "auto"), ("jax", "adam"))
OPTIONS: dict[str, Any] = {"vocabulary": (5_000, 100_000), "rounds": 7, "steps": 20, "slow_steps": 2}


def work(vocabulary: int, optimizer: str) -> None:
    """The work of a process: asked for a number of steps, it takes them and answers with their seconds."""
    from benchmarks.studies._steps import SMALL, Case

    case = Case("mmoe", vocabulary, optimizer, hyperparameters=SMALL)
    model = case.build()
    x, y = case.draw(64 * case.batch)

    def steps(count: str) -> float:
        rows = int(count) * case.batch
        part = [{name: array[:rows] for name, array in given.items()} for given in (x, y)]
        begun = time.perf_counter()
        model.fit(*part, batch_size=case.batch, shuffle=False, verbose=0)
        return time.perf_counter() - begun

    for _ in range(2):
        steps("2")
    serve(steps)


def measured(vocabulary: int, rounds: int, steps: int, slow_steps: int) -> list[dict[str, Any]]:
    """Rows of all contestants."""
    code = "from benchmarks.studies import backends; backends.work({}, {!r})"
    root = {"PYTHONPATH": str(frame.ROOT)}
    workers = [
        Worker(code.format(vocabulary, optimizer), {**root, "KERAS_BACKEND": backend})
        for backend, optimizer in CONTESTANTS
    ]
    counts = [slow_steps if optimizer == "adam" else steps for _, optimizer in CONTESTANTS]
    answers = take_turns(workers, [str(count) for count in counts], rounds)
    turns = [[seconds / count for seconds in found] for found, count in zip(answers, counts, strict=True)]
    for worker in workers:
        worker.close()
    rows = []
    for (backend, optimizer), times in zip(CONTESTANTS, turns, strict=True):
        about = {"vocabulary": vocabulary, "backend": backend, "optimizer": optimizer, "rounds": rounds}
        step = {"step_ms": round(1e3 * statistics.median(times), 2)}
        rows.append({**about, **step, **frame.ratios(times, turns[0])})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the top of the file."""
    args = frame.parser(__doc__ or "", OPTIONS).parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for vocabulary in args.vocabulary:
        rows += measured(vocabulary, args.rounds, args.steps, args.slow_steps)
        table = frame.write(Path(args.out), rows)
    frame.show(table, ["vocabulary", "backend", "optimizer", "step_ms", "ratio"], "against TensorFlow by row")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
