"""What reading from Parquet costs: `fit` from files against `fit` from memory, in turn, and the memory it takes.

Files hold 30 integer columns that a learned vocabulary encodes, 10 float columns and two labels, so that decoding,
encoding and shuffling are all in the figure. Every turn trains the same number of steps of the same model.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mtl_zoo import _validation as check
from mtl_zoo.benchmark import environment
from mtl_zoo.features.spec import Categorical, Feature, Numeric
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models import create_model
from mtl_zoo.tasks import BinaryTask

IDS, NUMBERS, VALUES = 30, 10, 5_000
TASKS = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))
MODEL: dict[str, Any] = {"num_experts": 8, "expert_units": (128, 64), "tower_units": (32,)}
_ROW_GROUP = 131_072
_BATCH = 1024


def make_table(rows: int, seed: int) -> pa.Table:
    """Random rows of the benchmark's table."""
    rng = np.random.default_rng(seed)
    columns = {f"id_{i}": rng.integers(0, VALUES, rows) for i in range(IDS)}
    columns |= {f"number_{i}": rng.normal(size=rows).astype("float32") for i in range(NUMBERS)}
    columns["click"] = (rng.random(rows) < 0.2).astype("int8")
    columns["conversion"] = columns["click"] * (rng.random(rows) < 0.1).astype("int8")
    return pa.table(columns)


def write_files(folder: Path, gigabytes: float) -> int:
    """Parquet files of about so many bytes together, a tenth of it each; the number of rows. What is there is kept."""
    if folder.exists():
        return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rows = written = number = 0
    while written < gigabytes * 1e9:
        path = part / f"part-{number:03d}.parquet"
        with pq.ParquetWriter(path, make_table(1, 0).schema) as writer:
            while path.stat().st_size < gigabytes * 1e8:
                writer.write_table(make_table(_ROW_GROUP, rows), row_group_size=_ROW_GROUP)
                rows += _ROW_GROUP
        written += path.stat().st_size
        number += 1
    part.rename(folder)
    return rows


class _PeakMemory:
    """The most resident memory of this process over that at the start, sampled 50 times a second."""

    def __enter__(self):
        self._start = self._peak = _resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _resident_bytes())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return max(self._peak, _resident_bytes()) - self._start


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure_input(sizes: Sequence[float], *, steps: int = 400, pairs: int = 5, folder: Path) -> pd.DataFrame:
    """Trains `steps` steps from memory and from files of each size, in turn, `pairs` times over.

    Columns: `source`, `gigabytes` and `rows` of the files, `steps`, `examples_per_second` (median), `ratio` of the rate
    to that from memory in the same round (median, `ratio_low`, `ratio_high`), `peak_mbytes` (resident memory over the
    start of the turn, the most of all turns), `bound_mbytes` (`TableStream.memory_bound`), and what they depend on.

    Raises:
        ValueError: No size, or fewer than 1 pair or step.
    """
    if not sizes:
        raise ValueError("`sizes` must hold at least one size of files in GB. Received: none")
    check.check_int("steps", steps)
    check.check_int("pairs", pairs)
    memory = make_table(steps * _BATCH, 0)
    features: list[Feature] = [Categorical(f"id_{i}") for i in range(IDS)]
    features += [Numeric(f"number_{i}", normalization=None) for i in range(NUMBERS)]
    transform = FeatureTransform(features, TASKS).fit(memory.slice(0, 200_000))
    inputs, labels = transform.encode(memory), transform.encode_labels(memory)
    keras.utils.set_random_seed(0)
    model = create_model("mmoe", transform, **MODEL)
    model.compile("auto", metrics=None)

    def from_memory():
        model.fit(inputs, labels, batch_size=_BATCH, shuffle=True, verbose=0)

    turns = {"memory": from_memory}
    about = {"memory": {"gigabytes": "", "rows": len(memory), "bound_mbytes": ""}}
    for size in sizes:
        files = folder / f"{size:g}GB"
        rows = write_files(files, size)
        stream = TableStream(str(files), transform)

        def from_files(stream=stream):
            model.fit(stream.batches(_BATCH, shuffle=True, seed=0), steps_per_epoch=steps, verbose=0)

        name = f"parquet {size:g} GB"
        turns[name] = from_files
        about[name] = {"gigabytes": size, "rows": rows, "bound_mbytes": round(stream.memory_bound / 1e6)}
    for turn in turns.values():
        turn()
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    peaks = dict.fromkeys(turns, 0)
    for _, (name, turn) in itertools.product(range(pairs), turns.items()):
        started = time.perf_counter()
        with _PeakMemory() as memory_used:
            turn()
        seconds[name].append(time.perf_counter() - started)
        peaks[name] = max(peaks[name], memory_used.bytes)
    common = {
        "steps": steps,
        "pairs": pairs,
        **environment.about(),
    }
    table = []
    for name, times in seconds.items():
        ratios = [memory_time / own for memory_time, own in zip(seconds["memory"], times, strict=True)]
        row = {
            "source": name,
            **about[name],
            "examples_per_second": round(steps * _BATCH / statistics.median(times), 1),
            "ratio": round(statistics.median(ratios), 4),
            "ratio_low": round(min(ratios), 4),
            "ratio_high": round(max(ratios), 4),
            "peak_mbytes": round(peaks[name] / 1e6),
        }
        table.append({**row, **common})
    return pd.DataFrame(table)


def input_main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.input_speed`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_speed", description="fit from Parquet files against fit from memory, in turn."
    )
    parser.add_argument("--sizes", nargs="+", type=float, default=[0.5, 5.0], help="GB of files (default: 0.5 5)")
    parser.add_argument("--steps", type=int, default=400, help="steps of a turn, 1,024 rows each")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the files there, and uses those of an earlier run")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the rows go, anew")
    args = parser.parse_args(arguments)
    kept = args.folder and contextlib.nullcontext(args.folder)
    with kept or tempfile.TemporaryDirectory() as folder:
        table = measure_input(args.sizes, steps=args.steps, pairs=args.pairs, folder=Path(folder))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    shown = Table(title="fit, in turn; ratio to the rate from memory")
    columns = ("source", "rows", "examples_per_second", "peak_mbytes", "bound_mbytes")
    for column in (*columns, "ratio"):
        shown.add_column(column, justify="right")
    for row in table.to_dict("records"):
        ratio = f"{row['ratio']:.3f} ({row['ratio_low']:.3f}-{row['ratio_high']:.3f})"
        shown.add_row(*(str(row[column]) for column in columns), ratio)
    Console(width=120).print(shown)
    return 0
