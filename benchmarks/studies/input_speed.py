"""What reading from Parquet costs: `fit` from files against `fit` from memory, in turn, and the memory it takes.

Files hold 30 integer columns that a learned vocabulary encodes, 10 float columns and two labels, so that decoding,
encoding and shuffling are all in the figure. Every turn trains the same number of steps of the same model.
"""

from __future__ import annotations

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
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies import _frame as frame
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
    """Random rows of the study's table."""
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

    def __enter__(self) -> _PeakMemory:
        self._start = self._peak = _resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _resident_bytes())

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return max(self._peak, _resident_bytes()) - self._start


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _turns(sizes: Sequence[float], steps: int, folder: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """{source: (a call that trains the steps from it, what its row says of it)}, memory first."""
    memory = make_table(steps * _BATCH, 0)
    features: list[Feature] = [Categorical(f"id_{i}") for i in range(IDS)]
    features += [Numeric(f"number_{i}", normalization=None) for i in range(NUMBERS)]
    transform = FeatureTransform(features, TASKS).fit(memory.slice(0, 200_000))
    inputs, labels = transform.encode(memory), transform.encode_labels(memory)
    keras.utils.set_random_seed(0)
    model = create_model("mmoe", transform, **MODEL)
    model.compile("auto", metrics=None)

    def from_memory() -> None:
        model.fit(inputs, labels, batch_size=_BATCH, shuffle=True, verbose=0)

    turns: dict[str, tuple[Any, dict[str, Any]]] = {
        "memory": (from_memory, {"gigabytes": "", "rows": len(memory), "bound_mbytes": ""})
    }
    for size in sizes:
        rows = write_files(folder / f"{size:g}GB", size)
        stream = TableStream(str(folder / f"{size:g}GB"), transform)

        def from_files(stream: TableStream = stream) -> None:
            model.fit(stream.batches(_BATCH, shuffle=True, seed=0), steps_per_epoch=steps, verbose=0)

        about = {"gigabytes": size, "rows": rows, "bound_mbytes": round(stream.memory_bound / 1e6)}
        turns[f"parquet {size:g} GB"] = from_files, about
    return turns


def measure(sizes: Sequence[float], steps: int, pairs: int, folder: Path) -> list[dict[str, Any]]:
    """Trains `steps` steps from memory and from files of each size (GB), in turn, `pairs` times over.

    Columns: `source`, `gigabytes` and `rows` of the files, `steps`, `examples_per_second` (median), `ratio` of the rate
    to that from memory in the same round (median, and its range), `peak_mbytes` (resident memory over the start of the
    turn, the most of all turns), `bound_mbytes` (`TableStream.memory_bound`).
    """
    turns = _turns(sizes, steps, folder)
    for turn, _ in turns.values():
        turn()
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    peaks = dict.fromkeys(turns, 0)
    for _, (name, (turn, _)) in itertools.product(range(pairs), turns.items()):
        started = time.perf_counter()
        with _PeakMemory() as used:
            turn()
        seconds[name].append(time.perf_counter() - started)
        peaks[name] = max(peaks[name], used.bytes)
    return [
        {
            "source": name,
            **turns[name][1],
            "examples_per_second": round(steps * _BATCH / statistics.median(times), 1),
            **frame.ratios(seconds["memory"], times),
            **{"peak_mbytes": round(peaks[name] / 1e6), "steps": steps, "pairs": pairs},
        }
        for name, times in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.input_speed`."""
    parser = frame.parser(__doc__, {"sizes": (0.5, 5.0), "steps": 400, "pairs": 5}, out="where the rows go, anew")
    parser.add_argument("--folder", type=Path, help="keeps the files there, and uses those of an earlier run")
    args = parser.parse_args(arguments)
    kept = args.folder and contextlib.nullcontext(args.folder)
    with kept or tempfile.TemporaryDirectory() as folder:
        table = frame.write(args.out, measure(args.sizes, args.steps, args.pairs, Path(folder)))
    frame.show(table, ("source", "rows", "examples_per_second", "peak_mbytes", "bound_mbytes", "ratio"))
    return 0


if __name__ == "__main__":
    frame.start(__file__)
