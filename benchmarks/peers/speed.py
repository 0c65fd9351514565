"""Ours against torch-rechub and DeepCTR: the same MMoE, data, batch and optimizer, epochs of public `fit` in turn.

python -m benchmarks.peers.speed --out results/peers/speed.csv \
    --torch-rechub .venv-peers/bin/python --deepctr .venv-deepctr/bin/python

Each contestant is a process of its own environment that stays warm. A probe first picks its best settings (threads,
loader processes, optimizer class); one epoch each warms up; then rounds of one epoch each, in turn. A ratio compares
epochs of the same round. That cancels slow drift of the machine, not other work on it: with one of two cores busy,
PyTorch on two threads took four times as long. A contestant whose epochs differ too much is named (`spread`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.peers.speed_workers import Contestant, Worker, WorkerError
from mtl_zoo.benchmark import environment
from mtl_zoo.features.spec import FIRST_ID

MIN_BATCHES = 8
# Slowest over fastest epoch of a contestant; above it, the machine was not idle and the run is to be repeated.
MAX_SPREAD = 1.25


@dataclasses.dataclass(frozen=True)
class PeerCase:
    """The model and the data that all train.

    Args:
        vocabulary: Ids of each categorical feature; drawn uniformly, so that hardly any row is hot.
        model: `"mmoe"`, or `"shared_bottom"`, whose bottom has the widths `expert_units`.
        features: Categorical features.
        numerics: Numeric features.
        dim: Width of an embedding.
        batch: Rows a step.
        experts: Experts.
        expert_units: Widths of an expert.
        tower_units: Widths of a tower; a linear layer to the logit follows.
        tasks: Names of the binary tasks.
        learning_rate: Adam's.
    """

    vocabulary: int = 5000
    model: str = "mmoe"
    features: int = 30
    numerics: int = 10
    dim: int = 16
    batch: int = 1024
    experts: int = 8
    expert_units: tuple[int, ...] = (128, 64)
    tower_units: tuple[int, ...] = (32,)
    tasks: tuple[str, ...] = ("click", "conversion")
    learning_rate: float = 1e-3

    def message(self) -> dict:
        """As the workers take it."""
        # Our tables keep the first ids for missing and unknown; the peers' are made as large.
        return {**dataclasses.asdict(self), "table_rows": self.vocabulary + FIRST_ID}

    def arrays(self, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Columns as rows of one array each, so that a column is contiguous."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(FIRST_ID, FIRST_ID + self.vocabulary, (self.features, rows), dtype=np.int32)
        numbers = rng.standard_normal((self.numerics, rows), dtype=np.float32)
        labels = (rng.random((len(self.tasks), rows)) < 0.2).astype(np.float32)
        return {"ids": ids, "numbers": numbers, "labels": labels}


# Where what an operation costs by itself rules.
SMALL = {"model": "shared_bottom", "features": 10, "numerics": 0, "batch": 256, "experts": 1, "expert_units": (64,)}


def contestants(torch_rechub: str | None, deepctr: str | None, cores: int) -> list[Contestant]:
    """Ours with its optimizer by row, which the others are compared with, then all others whose Python is given."""
    threads = sorted({1, cores}, reverse=True)

    def command(python: str, module: str) -> tuple[str, ...]:
        return python, "-m", f"benchmarks.peers.{module}"

    def choices(**options) -> tuple[dict, ...]:
        return tuple(dict(zip(options, values, strict=True)) for values in itertools.product(*options.values()))

    ours = command(sys.executable, "speed_ours")
    found = [
        Contestant("mtl_zoo", "fit", ours, choices(optimizer=["auto"], threads=threads)),
        Contestant("mtl_zoo", "fit", ours, choices(optimizer=["adam"], threads=threads)),
        # What the zoo's own setting of the allocator is worth: TensorFlow's left as it is.
        Contestant("mtl_zoo", "fit", ours, choices(optimizer=["auto"], threads=threads, allocator=["tensorflow"])),
        Contestant("mtl_zoo", "products", ours, choices(threads=threads)),
    ]
    if torch_rechub:
        theirs = command(torch_rechub, "speed_rechub")
        found.append(Contestant("torch-rechub", "fit", theirs, choices(workers=[0, 1, 2], threads=threads)))
        found.append(Contestant("torch-rechub", "no_loader", theirs, choices(threads=threads)))
    if deepctr:
        theirs = command(deepctr, "speed_deepctr")
        settings = choices(keras=["tf-keras"], optimizer=["Adam", "legacy.Adam"], threads=threads)
        settings += choices(keras=["keras"], optimizer=["Adam"], threads=threads)
        found.append(Contestant("deepctr", "fit", theirs, settings))
        found.append(Contestant("deepctr", "fit_without_l2", theirs, settings))
    return found


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our rate over theirs, round by round: above 1 where we are faster."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def rows_of_turn(rate: float, seconds: float, batch: int, most: int) -> int:
    """Whole batches that take about `seconds` at `rate` rows a second; `seconds=0` asks for all."""
    batches = most // batch
    if seconds:
        batches = min(batches, max(MIN_BATCHES, round(rate * seconds / batch)))
    return batches * batch


@dataclasses.dataclass
class Chosen:
    """A contestant at its best settings, warm."""

    contestant: Contestant
    worker: Worker
    rate: float
    rows: int = 0
    probe: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)
    loss: float | None = None

    @property
    def rates(self) -> list[float]:
        return [self.rows / seconds for seconds in self.seconds]


def choose(contestant: Contestant, case: PeerCase, data: Path, rows: int, timeout: float) -> Chosen:
    """Starts a worker for each candidate, one after the other, and keeps the fastest: the better of two warm epochs.

    With `rows=0` the first candidate is taken as it is.
    """
    best: Chosen | None = None
    probe: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for settings in contestant.candidates if rows else contestant.candidates[:1]:
            taken = rows or MIN_BATCHES * case.batch
            worker = stack.enter_context(Worker(contestant, settings, case.message(), data, timeout))
            worker.turn(taken)
            rate = max(taken / worker.turn(taken)[0] for _ in range(2))
            say(f"{contestant.name} {settings}: {rate:,.0f} rows/s in the probe")
            if rows:
                probe[json.dumps(settings)] = round(rate, 1)
            slower = worker
            if best is None or rate > best.rate:
                best, slower = Chosen(contestant, worker, rate, probe=probe), best.worker if best else None
            if slower:
                slower.close()
        if best is None:
            raise ValueError(f"`candidates` of {contestant.name} must hold at least one. Received: none")
        stack.pop_all()  # the others are closed
    return best


def measure(
    sides: Sequence[Contestant],
    case: PeerCase,
    *,
    pairs: int = 5,
    rows: int = 200 * 1024,
    seconds: float = 5.0,
    probe_batches: int = 40,
    timeout: float = 900.0,
) -> pd.DataFrame:
    """Lets the contestants train in turn: a row for each; ratios are against the first.

    Args:
        sides: Who takes part; the first is ours.
        case: What they train.
        pairs: Rounds that count, after one that does not.
        rows: Rows of the data; an epoch takes no more.
        seconds: How long an epoch is to take, in whole batches; 0 gives each all rows.
        probe_batches: Batches of an epoch of the probe; 0 takes the first settings of each.
        timeout: Seconds that a worker may take to start, or for an epoch.

    Raises:
        ValueError: No contestant, pair, or fewer rows than the shortest epoch.
        WorkerError: What a worker raises.
    """
    if not sides or pairs < 1:
        raise ValueError(f"`sides` and `pairs` must be at least 1. Received: {len(sides)} sides, pairs={pairs}")
    if rows < MIN_BATCHES * case.batch:
        raise ValueError(f"`rows` must be at least {MIN_BATCHES} batches of {case.batch}. Received: rows={rows}")
    probe_rows = min(probe_batches, rows // case.batch) * case.batch
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "arrays.npz"
        np.savez(data, **case.arrays(rows))
        taking_part = []
        for side in sides:
            one = choose(side, case, data, probe_rows, timeout)
            stack.enter_context(one.worker)
            one.rows = rows_of_turn(one.rate, seconds, case.batch, rows)
            taking_part.append(one)
        for number in range(pairs + 1):
            for one in taking_part:
                took, one.loss = one.worker.turn(one.rows)
                if number:
                    one.seconds.append(took)
            say(f"round {number} of {pairs}" + ("" if number else " (warm-up, not counted)"))
    return pd.DataFrame([result(one, taking_part[0], case) for one in taking_part])


def result(one: Chosen, ours: Chosen, case: PeerCase) -> dict:
    """The row of a contestant."""
    ratios = paired_ratios(ours.rates, one.rates)
    commit, dirty = environment.commit()
    return {
        "framework": one.contestant.framework,
        "mode": one.contestant.mode,
        "settings": json.dumps(one.worker.settings),
        "vocabulary": case.vocabulary,
        "batch": case.batch,
        "rows": one.rows,
        "parameters": one.worker.parameters or None,
        "pairs": len(ratios),
        "examples_per_second": round(statistics.median(one.rates), 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_low": round(min(ratios), 4),
        "ratio_high": round(max(ratios), 4),
        "spread": round(max(one.seconds) / min(one.seconds), 4),
        "seconds": json.dumps([round(took, 4) for took in one.seconds]),
        "ratios": json.dumps([round(ratio, 4) for ratio in ratios]),
        "loss": None if one.loss is None else round(one.loss, 4),
        "probe": json.dumps(one.probe),
        "case": json.dumps(case.message()),
        "versions": json.dumps(one.worker.versions),
        "hardware": environment.processor(),
        "commit": commit,
        "dirty": dirty,
    }


def show(table: pd.DataFrame) -> None:
    shown = Table(title=f"rows a second of `fit`, in turn; {table['vocabulary'][0]:,} ids a feature")
    for column in ("contestant", "settings", "parameters", "rows/s", "ours / theirs (low-high)"):
        shown.add_column(column, justify="left" if column in ("contestant", "settings") else "right")
    for row in table.to_dict("records"):
        settings = ", ".join(f"{name} {value}" for name, value in json.loads(row["settings"]).items())
        shown.add_row(
            f"{row['framework']} {row['mode']}",
            settings,
            "" if pd.isna(row["parameters"]) else f"{row['parameters']:,.0f}",
            f"{row['examples_per_second']:,.0f}",
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})",
        )
    Console(width=120).print(shown)
    for row in table[table["spread"] > MAX_SPREAD].to_dict("records"):
        say(
            f"{row['framework']} {row['mode']}: its slowest epoch took {row['spread']:.2f} times its fastest. "
            f"The machine was not idle: these ratios are not to be used (at most {MAX_SPREAD} is accepted)."
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    parser.add_argument("--torch-rechub", metavar="PYTHON", help="of its environment; without it, it is left out")
    parser.add_argument("--deepctr", metavar="PYTHON", help="of its environment; without it, it is left out")
    parser.add_argument("--vocabulary", type=int, default=5000, help="ids of each categorical feature")
    parser.add_argument("--small", action="store_true", help="a shared bottom (64,) of 10 features, batches of 256")
    parser.add_argument("--pairs", type=int, default=5, help="rounds that count")
    parser.add_argument("--rows", type=int, default=200 * 1024, help="of the data; an epoch takes no more")
    parser.add_argument("--seconds", type=float, default=5.0, help="of an epoch; 0: all rows for each")
    parser.add_argument("--probe-batches", type=int, default=40, help="of an epoch; 0: no probe")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that one answer of a worker may take")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        table = measure(
            contestants(args.torch_rechub, args.deepctr, cores),
            PeerCase(args.vocabulary, **(SMALL if args.small else {})),
            pairs=args.pairs,
            rows=args.rows,
            seconds=args.seconds,
            probe_batches=args.probe_batches,
            timeout=args.timeout,
        )
    except (WorkerError, ValueError) as error:
        say(str(error))
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False, lineterminator="\n")
    show(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
