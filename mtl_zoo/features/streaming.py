"""Batches from Parquet and CSV files that are larger than memory."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_zoo import _validation as check
from mtl_zoo.features import _labels
from mtl_zoo.features._columns import BOOLEAN, FLOAT
from mtl_zoo.features._stream_encode import Encoder, columns_of, layout_of
from mtl_zoo.features._stream_files import UNREADABLE, CorruptFile, CsvOptions, Source, open_source
from mtl_zoo.features._stream_find import find_files
from mtl_zoo.features._stream_plan import MAX_PIECE_ROWS, OPEN_PARTS, Plan, make_plan
from mtl_zoo.features._stream_read import Part, WindowReader, parts_of
from mtl_zoo.features.batching import batch_runs
from mtl_zoo.features.sampling import Keep, NegativeSampling, sampled_parts
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.tasks import Task

_ON_CORRUPT = ("raise", "skip")
# Of a piece while it is encoded: its Arrow and pandas columns, codes and results, a row and column.
_PIECE_BYTES = 64
# Of an open row group: a page and a dictionary of each column.
_PAGES_BYTES = 2 << 20
# Rows that are handed over at once where several streams take turns.
_PASSED_ROWS = 4096
_FIXED_BYTES = 128 << 20
# Of which the length of strings is taken.
_SAMPLED_PARTS, _SAMPLED_ROWS = 8, 1024


class TableStream:
    """Batches from tables in files, as `FeatureTransform.batches` gives them from a table in memory.

    Files are read in parts: the row groups of a Parquet file, or blocks of about 4 MiB of a CSV file. With `shuffle`,
    the parts of all files come in a new order every epoch, four at a time in turns, and their rows are shuffled within
    windows of `shuffle_rows`; every row comes once an epoch. The order depends on the seed and the number of the epoch
    alone, not on `workers`. Memory is bounded by `memory_bound`, whatever the size of the files.

    The transform must be fitted, on a table in memory: a sample of the rows will do, since values that it lacks become
    "unknown". Labels and weights are checked part by part, so all labels of a task may be missing in one.

    Args:
        paths: A file (.parquet, .pq, .csv, .tsv), a folder, a glob, or a list of these. CSV files have a header, and no
            line breaks within values; column types are those of the transform. They may be compressed (.csv.gz,
            .csv.bz2, .csv.zst); one such file is one part, which is read from its start. Folders named `column=value`
            give their files that column.
        transform: A fitted `FeatureTransform`.
        shuffle_rows: Rows of a window. Two are in memory: one is handed out while the next is read.
        workers: Threads that read and encode.
        on_corrupt: `"raise"`: a part that cannot be read is an error that names it. `"skip"`: all files are read once
            at the start, and such parts left out, with a warning that names them.
        labels: False gives inputs only; the files then need no label columns.
        encoding: Of the text of CSV files: the name of a codec, for example `"latin1"` or `"gbk"`.
        null_values: Texts that stand for a missing value in CSV files (`"\\\\N"`), beside the usual ones.

    Raises:
        FileNotFoundError: A path names no file.
        ValueError: The transform is not fitted; a file lacks a column, holds another kind of values than the first
            file, or cannot be read; there is no row.

    Warns:
        UserWarning: Parts were left out, with `on_corrupt="skip"`; a folder holds files that are not read.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform
    >>> from mtl_zoo.features.streaming import TableStream
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "click": [0, 1, 0]})
    >>> table.to_parquet("clicks.parquet")
    >>> stream = TableStream("clicks.parquet", FeatureTransform([Categorical("city")], BinaryTask("click")).fit(table))
    >>> stream.rows
    3
    >>> [inputs["city"].numpy().tolist() for inputs, labels in stream.batches(batch_size=2)]
    [[2, 3], [2]]
    """

    def __init__(
        self,
        paths: Any,
        transform: FeatureTransform,
        *,
        shuffle_rows: int = 262_144,
        workers: int = 2,
        on_corrupt: str = "raise",
        labels: bool = True,
        encoding: str = "utf8",
        null_values: tuple[str, ...] = (),
    ):
        self.shuffle_rows = check.check_int("shuffle_rows", shuffle_rows)
        self.workers = check.check_int("workers", workers)
        self.on_corrupt = check.check_choice("on_corrupt", on_corrupt, _ON_CORRUPT)
        if not isinstance(transform, FeatureTransform) or not transform.is_fitted:
            raise ValueError(f"`transform` must be a fitted FeatureTransform. Received: transform={transform!r}")
        self.transform, self.labels = transform, labels
        self._csv = CsvOptions(encoding, null_values)
        self.encoding, self.null_values = encoding, null_values
        self.layout = layout_of(transform, labels)
        self._columns = columns_of(transform, labels)
        self.sampling: NegativeSampling | None = None
        self._constants: dict[str, str] = {}
        # Rows without labels are scored, which needs no column that only training reads.
        unread = () if labels else transform.training_columns
        self._may_lack = [(*columns, *unread) for columns in transform.absent or ((),)]
        self.files = tuple(find_files(paths))
        self._parts = self._find_parts()
        self.rows = sum(part.rows for part in self._parts)
        if not self.rows:
            raise ValueError(f"`paths` must hold at least one row. Received: {len(self.files)} files without any")

    def _find_parts(self) -> list[Part]:
        with ThreadPoolExecutor(self.workers) as pool:
            opened = list(pool.map(self._open, self.files))
            sources = [found for found in opened if not isinstance(found, CorruptFile)]
            _check_types(sources)
            parts = [part for source in sources for part in parts_of(source)]
            faults = pool.map(_fault, parts) if self.on_corrupt == "skip" else [None] * len(parts)
            good = []
            for part, fault in zip(parts, faults, strict=True):
                if fault is None:
                    good.append(part)
                else:
                    warnings.warn(f"{fault} Skipped with its {part.rows} rows.", stacklevel=3)
        for found in opened:
            if isinstance(found, CorruptFile):
                warnings.warn(f"{found} Skipped with all its rows, whose number is not known.", stacklevel=3)
        return good

    def _open(self, path: str) -> Source | CorruptFile:
        try:
            return open_source(path, *self._columns, self._csv, self._may_lack)
        except CorruptFile as error:
            if self.on_corrupt == "raise":
                raise
            return error

    def sampled(self, sampling: NegativeSampling) -> TableStream:
        """The stream without a share of the rows that have label 0: the same rows in every epoch.

        The labels of all rows are read once, to count those that stay.

        Args:
            sampling: Which rows stay.

        Raises:
            ValueError: The stream has no labels, or is sampled already; no such task; no row is left.
        """
        if not self.labels or self.sampling is not None:
            found = "labels=False" if not self.labels else f"a stream with sampling={self.sampling!r}"
            raise ValueError(f"`sampling` needs a stream with labels and all of its rows. Received: {found}")
        task = sampling.task_among(self.transform.tasks)
        made = self.chosen([task], lambda table, first: sampling.kept_of_table(table, task, first))
        made.sampling = sampling
        if not made.rows:
            raise ValueError(f"`sampling` must leave at least one row. Received: {sampling!r}, none of {self.rows}")
        return made

    def chosen(self, tasks: Sequence[Task], keep: Keep) -> TableStream:
        """The stream with some of its rows, of which their labels decide. These are read once, to count the rows.

        Args:
            tasks: The tasks whose labels, and sample spaces, `keep` reads.
            keep: Which rows stay, (rows,) booleans from a table and the position of its first row.
        """
        columns = dict.fromkeys(_labels.label_columns(tasks), (FLOAT, BOOLEAN))
        made = copy.copy(self)
        made._parts = sampled_parts(self._parts, lambda path: open_source(path, columns, [], self._csv), keep)
        made.rows = sum(part.rows for part in made._parts)
        return made

    @property
    def memory_bound(self) -> int:
        """The most bytes of memory that reading takes: the same for any size of the files.

        2 windows, the pieces that `workers` threads encode, the pages of 4 open row groups, and 128 MiB for allocators.
        Strings and lists count as long as they are in the first rows of some parts.
        """
        columns = len(self._columns[0])
        row_bytes = self.layout.row_bytes + 8  # the order of a window is in memory, too
        window_rows = min(self.shuffle_rows, self.rows)
        piece_rows = min(MAX_PIECE_ROWS, window_rows)
        # In a piece as Arrow's, pandas' and Python's; in a window where an encoder reads them.
        row_bytes += self._text_bytes if any(dtype.kind in "OSU" for dtype, _ in self.layout.specs) else 0
        piece_bytes = columns * _PIECE_BYTES + 3 * self._text_bytes
        pages = OPEN_PARTS * columns * _PAGES_BYTES
        return 2 * window_rows * row_bytes + self.workers * piece_rows * piece_bytes + pages + _FIXED_BYTES

    @functools.cached_property
    def _text_bytes(self) -> int:
        """Bytes that the strings and lists of a row take, at most on average over the first rows of some parts."""
        most = 0.0
        for part in self._parts[:: max(1, len(self._parts) // _SAMPLED_PARTS)][:_SAMPLED_PARTS]:
            with contextlib.suppress(*UNREADABLE):  # named when its rows are read
                batch = next(iter(part.source.read(part.index, _SAMPLED_ROWS)))
                columns = [column for column in batch.columns if not pa.types.is_primitive(column.type)]
                most = max(most, sum(_length(column) for column in columns) / len(batch))
        return math.ceil(most)

    def num_batches(self, batch_size: int = 1024, drop_remainder: bool = False) -> int:
        """Batches of an epoch."""
        return self.rows // batch_size if drop_remainder else -(-self.rows // batch_size)

    def batches(
        self,
        batch_size: int = 1024,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        *,
        epoch: int | Callable[[], int] = 0,
        start: int = 0,
    ) -> Any:
        """A `tf.data.Dataset` of `(inputs, labels)` or, with weights, `(inputs, labels, weights)`, dicts by name.

        Each time that it is iterated is an epoch of its own. To go on where an earlier run was, pass its seed, the
        number of the epoch and the number of batches that it had taken from it: the batches that come are exactly those
        that would have come.

        Args:
            batch_size: Rows a batch.
            shuffle: A new order every epoch.
            seed: The same seed gives the same orders. None: drawn from NumPy's global generator, which
                `keras.utils.set_random_seed` seeds.
            drop_remainder: Leave out a last batch with fewer rows.
            epoch: Number of the first epoch, or a function that gives the number of each when it begins.
            start: Batches of the first epoch to leave out. The number of batches is then not known to TensorFlow,
                since later epochs have more.

        Raises:
            ValueError: `start` is not within an epoch; a file cannot be read, named with its row group; a column holds
                what its feature or task cannot read.
        """
        batch_size = check.check_int("batch_size", batch_size)
        first_epoch = 0 if callable(epoch) else check.check_int("epoch", epoch, minimum=0)
        start = check.check_int("start", start, minimum=0)
        num_batches = self.num_batches(batch_size, drop_remainder)
        if start >= max(num_batches, 1):
            raise ValueError(f"`start` must be below the {num_batches} batches of an epoch. Received: start={start}")
        seed = _seed(seed) if shuffle else None
        epochs = itertools.count(first_epoch)

        def one_epoch() -> Iterator[tuple[np.ndarray, ...]]:
            number = epoch() if callable(epoch) else next(epochs)
            plan = self._plan(seed, number)
            first = start if number == first_epoch else 0
            return self._packed_runs(plan, list(batch_runs(range(first, num_batches), self.rows, batch_size)))

        all_full = drop_remainder or self.rows % batch_size == 0
        known = None if start else num_batches
        data = self.layout.dataset(one_epoch, batch_size, all_full=all_full, num_batches=known)
        data.encoded_features = self.transform.features  # a model of these need not look at the rows again
        return data

    def _packed_runs(self, plan: Plan, runs: list[tuple[int, int]]) -> Iterator[tuple[np.ndarray, ...]]:
        if runs:
            yield from self._rows_of(plan, runs[0][0], [stop - start for start, stop in runs])

    def rows_of_pass(self, seed: int | None, number: int, start: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The rows of one pass over the files from row `start` on, packed as `layout` says, a few at a time."""
        plan = self._plan(seed, number)
        sizes = [min(_PASSED_ROWS, self.rows - row) for row in range(start, self.rows, _PASSED_ROWS)]
        return self._rows_of(plan, start, sizes)

    def with_constant(self, column: str, value: str) -> TableStream:
        """The stream with a column that holds one value in all rows, in place of one of the files."""
        made = copy.copy(self)
        made._constants = {**self._constants, column: value}
        return made

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: of the files, or that some of them have."""
        read = {column: None for part in self._parts for column in part.source.types()}
        return tuple({**read, **dict.fromkeys(self._constants)})

    def release(self) -> None:
        """Lets go of rows in memory, of which a stream has none between epochs."""

    def known_by(self) -> dict[str, Any]:
        """What the data of a run are known by, beside the size of its batches, as plain values."""
        known = {"files": len(self.files), "rows": self.rows}
        return known if self.sampling is None else {**known, "sampling": self.sampling.get_config()}

    def _plan(self, seed: int | None, number: int) -> Plan:
        return make_plan([p.rows for p in self._parts], self.shuffle_rows, None if seed is None else (seed, number))

    def _rows_of(self, plan: Plan, start: int, sizes: list[int]) -> Iterator[tuple[np.ndarray, ...]]:
        encode = Encoder(self.transform, self.labels, self._constants)
        index, place = plan.find(start)
        windows = WindowReader(self._parts, encode, self.layout, self.workers).read(plan, index)
        try:
            yield from _regrouped(windows, place, sizes)
        finally:
            windows.close()  # type: ignore[attr-defined]
        encode.log_unseen()


def _length(column: pa.Array) -> int:
    """Bytes of the values of a column; of a dictionary, as if each stood in its row."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.nbytes


def _fault(part: Part) -> CorruptFile | None:
    try:
        part.check()
    except CorruptFile as error:
        return error
    return None


def _seed(seed: int | None) -> int:
    return np.random.randint(2**31) if seed is None else check.check_int("seed", seed, minimum=0)


def _regrouped(windows: Iterator[list[np.ndarray]], place: int, lengths: list[int]) -> Iterator[tuple[np.ndarray, ...]]:
    """Runs of the given lengths, from row `place` of the first window on."""
    window = next(windows)
    for wanted in lengths:
        pieces: list[list[np.ndarray]] = []
        while wanted and window:
            # Copies, since a run that TensorFlow holds must not keep its window in memory.
            pieces.append([array[place : place + wanted].copy() for array in window])
            place += len(pieces[-1][0])
            wanted -= len(pieces[-1][0])
            if place == len(window[0]):
                window, place = [], 0  # free before the next is read
                window = next(windows, [])
        yield tuple(a[0] if len(a) == 1 else np.concatenate(a) for a in zip(*pieces, strict=True))


def _check_types(sources: list[Source]) -> None:
    """Refuses files whose columns hold different kinds of values."""
    seen: dict[str, tuple[str, str]] = {}
    for source in sources:
        for column, kind in source.types().items():
            first_kind, first_path = seen.setdefault(column, (kind, source.path))
            if "nothing" in (kind, first_kind):
                if first_kind == "nothing":
                    seen[column] = (kind, source.path)
            elif kind != first_kind:
                raise ValueError(
                    f"`{column}` must hold the same kind of values in all files. Received: {first_kind} in "
                    f"{first_path!r}, {kind} in {source.path!r}"
                )
