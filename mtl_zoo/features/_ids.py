"""Values become ids: 0 missing or padding, 1 out of vocabulary, 2.. values."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence as SequenceABC

import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, FLOAT, SHOWN, STRING, Cells, Column, Lists
from mtl_zoo.features.spec import FIRST_ID, MISSING_ID, UNKNOWN_ID, Categorical, Sequence

logger = logging.getLogger(__name__)

IdFeature = Categorical | Sequence
# Whole numbers that span at most so many, or so many times as many as there are, are looked up in a table.
_TABLE_ROWS, _TABLE_FACTOR = 1 << 20, 4
_WHOLE = "must hold whole numbers or strings, since its values become ids"
_WHOLE_ADVICE = "Use Numeric for measured numbers, or convert it: table[column].astype(str)"


def holds_lists(feature: IdFeature) -> bool:
    return isinstance(feature, Sequence) or feature.multi_hot


def read(feature: IdFeature, column: Column) -> Cells | Lists:
    return column.lists(feature.separator) if holds_lists(feature) else column.cells()


def cells_of(values: Cells | Lists) -> Cells:
    return values.cells if isinstance(values, Lists) else values


def whole_numbers(cells: Cells) -> np.ndarray:
    """The distinct values as int64; 1.0 is 1, and 1.5 is refused."""
    if cells.kind != FLOAT:
        return cells.values.astype(np.int64)
    whole = (np.floor(cells.values) == cells.values) & (np.abs(cells.values) < 2.0**63)
    cells.refuse(_WHOLE, ~whole, _WHOLE_ADVICE)
    return cells.values.astype(np.int64)


def as_text(cells: Cells) -> np.ndarray:
    """The distinct values as strings; whole numbers in their decimal form, however they are stored."""
    if cells.kind in (STRING, EMPTY):
        return cells.values
    return np.array([str(value) for value in whole_numbers(cells).tolist()], dtype=object)


@dataclasses.dataclass(frozen=True, eq=False)
class Listed:
    """A vocabulary of values in the order of their ids: int64, or strings."""

    values: np.ndarray
    index: pd.Index = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "index", pd.Index(self.values, dtype=self.values.dtype))

    @property
    def is_text(self) -> bool:
        return self.values.dtype == object

    @property
    def num_ids(self) -> int:
        return FIRST_ID + len(self.values)

    @functools.cached_property
    def _by_number(self) -> tuple[int, np.ndarray] | None:
        """The smallest value, and the ids of all numbers from it to the largest, 0 where there is none."""
        if self.is_text or not len(self.values):
            return None
        lowest, highest = int(self.values.min()), int(self.values.max())
        if highest - lowest >= max(_TABLE_ROWS, _TABLE_FACTOR * len(self.values)):
            return None
        table = np.zeros(highest - lowest + 1, np.int32)
        table[self.values - lowest] = np.arange(FIRST_ID, self.num_ids)
        return lowest, table

    def ids_of_numbers(self, numbers: np.ndarray) -> np.ndarray | None:
        """Ids of int64 numbers if all of them are in the vocabulary, and it can be asked quickly; else None."""
        if self._by_number is None:
            return None
        lowest, table = self._by_number
        if numbers.min() < lowest or numbers.max() >= lowest + len(table):
            return None
        ids = table.take(numbers - lowest)
        return ids if ids.all() else None

    def ids(self, cells: Cells) -> np.ndarray:
        if cells.kind == EMPTY:
            return np.array([], dtype=np.int64)
        values = as_text(cells) if self.is_text else whole_numbers(cells)
        positions = self.index.get_indexer(pd.Index(values, dtype=values.dtype))
        return np.where(positions < 0, UNKNOWN_ID, positions + FIRST_ID)


@dataclasses.dataclass(frozen=True)
class Range:
    """The whole numbers 0 .. size - 1, at ids 2 .. size + 1."""

    size: int

    @property
    def num_ids(self) -> int:
        return FIRST_ID + self.size

    def ids_of_numbers(self, numbers: np.ndarray) -> np.ndarray | None:
        """Ids of int64 numbers if all of them are in the range; else None."""
        if numbers.min() < 0 or numbers.max() >= self.size:
            return None
        return (numbers + FIRST_ID).astype(np.int32)

    def ids(self, cells: Cells) -> np.ndarray:
        if cells.kind == STRING:
            is_number = pd.Series(cells.values, dtype=object).str.fullmatch("[0-9]{1,18}").to_numpy(dtype=bool)
            cells.refuse(f"must hold the whole numbers 0 .. {self.size - 1} between separators", ~is_number)
            numbers = np.array([int(value) for value in cells.values], dtype=np.int64)
        else:
            numbers = whole_numbers(cells)
            cells.refuse(f"must hold the whole numbers 0 .. {self.size - 1}, since size={self.size}", numbers < 0)
        return np.where(numbers < self.size, numbers + FIRST_ID, UNKNOWN_ID)


@dataclasses.dataclass(frozen=True)
class Hashed:
    """Ids by the hash of a value's text, the same in every process and in a graph."""

    buckets: int

    @property
    def num_ids(self) -> int:
        return FIRST_ID + self.buckets

    def ids_of_numbers(self, numbers: np.ndarray) -> None:
        """None: a hash is that of the text, which is worth making once for each distinct value."""

    def ids(self, cells: Cells) -> np.ndarray:
        import tensorflow as tf

        if not len(cells.values):
            return np.array([], dtype=np.int64)
        return tf.strings.to_hash_bucket_fast(as_text(cells).tolist(), self.buckets).numpy() + FIRST_ID


Vocabulary = Listed | Range | Hashed


def fit_vocabulary(features: SequenceABC[IdFeature], readings: SequenceABC[Cells | Lists]) -> Vocabulary:
    """The vocabulary of the features that share one table, given or learned from what they read."""
    _check_alike(features)
    first = features[0]
    cells = [cells_of(reading) for reading in readings]
    for feature, read_cells in zip(features, cells, strict=True):
        if not (read_cells.codes >= 0).any():
            raise ValueError(
                f"`{read_cells.column}` must hold a value to fit feature {feature.name!r}. "
                f"Received: {len(read_cells.codes)} rows, all missing"
            )
        if read_cells.kind == FLOAT:
            whole_numbers(read_cells)  # refuses the others
    if first.hash_buckets is not None:
        return Hashed(first.hash_buckets)
    if first.size is not None:
        vocabulary = Range(first.size)
        for feature, read_cells in zip(features, cells, strict=True):
            if not holds_lists(feature) and read_cells.kind == STRING:
                raise ValueError(
                    f"`{read_cells.column}` must hold whole numbers, since feature {feature.name!r} has "
                    f"size={first.size}. Received: {SHOWN[STRING]}, {check.sample_values(read_cells.values)}. Convert "
                    "it with pandas.to_numeric(table[column]), or leave `size` out to learn its vocabulary."
                )
            rule = f"must hold the whole numbers 0 .. {first.size - 1}, since size={first.size}"
            read_cells.refuse(rule, vocabulary.ids(read_cells) == UNKNOWN_ID)
        return vocabulary
    is_text = any(read_cells.kind == STRING for read_cells in cells)
    if first.vocabulary is not None:
        return _given(features, cells, is_text)
    return _learned(cells, is_text, first.min_count, first.max_ids)


def _check_alike(features: SequenceABC[IdFeature]) -> None:
    first = features[0]
    for other in features[1:]:
        for argument in ("vocabulary", "size", "hash_buckets", "min_count", "max_ids"):
            if getattr(first, argument) != getattr(other, argument):
                raise ValueError(
                    f"`{argument}` must be the same for features that share the table {first.table!r}. "
                    f"Received: different ones for {first.name!r} and {other.name!r}"
                )


def _given(features: SequenceABC[IdFeature], cells: SequenceABC[Cells], is_text: bool) -> Listed:
    given = Column(f"vocabulary of {features[0].name}", pd.Series(features[0].vocabulary, dtype=object)).cells()
    if given.missing:
        raise ValueError(
            f"`vocabulary` must not hold missing values, which have id 0. Received: {given.missing} of "
            f"{len(given.codes)} for feature {features[0].name!r}"
        )
    for feature, read_cells in zip(features, cells, strict=True):
        text = read_cells.kind == STRING
        # Strings between separators may well be numbers; a whole cell of text against numbers is a mistake.
        if text != (given.kind == STRING) and not (text and holds_lists(feature)):
            raise ValueError(
                f"`vocabulary` must hold values of the column's type. Received: {SHOWN[given.kind]} "
                f"({check.sample_values(given.values)}) for feature {feature.name!r}, column {read_cells.column!r} "
                f"with {SHOWN[read_cells.kind]} ({check.sample_values(read_cells.values)})"
            )
    return Listed(as_text(given) if is_text else whole_numbers(given))


def _learned(cells: SequenceABC[Cells], is_text: bool, min_count: int, max_ids: int | None) -> Listed:
    """Most frequent value first, equally frequent ones in their own order; the first `max_ids` of them."""
    keys = np.concatenate([as_text(c) if is_text else whole_numbers(c) for c in cells])
    counts = np.concatenate([c.counts for c in cells])
    codes, distinct = pd.factorize(keys)
    counts = np.bincount(codes, weights=counts, minlength=len(distinct)).astype(np.int64)
    keep = counts >= max(min_count, 1)
    table = pa.table({"value": pa.array(distinct[keep]), "count": counts[keep]})
    ordered = table.sort_by([("count", "descending"), ("value", "ascending")])["value"].slice(0, max_ids)
    return Listed(np.asarray(ordered.to_pandas(), dtype=object if is_text else np.int64))


@dataclasses.dataclass(frozen=True)
class Unseen:
    """Values of a column that its vocabulary lacks: how many cells hold one, their share, and a sample."""

    count: int
    share: float
    values: tuple


def encode(
    feature: IdFeature, vocabulary: Vocabulary, column: Column, length: int | None
) -> tuple[np.ndarray, Unseen | None]:
    """Ids (n,), or (n, length) for lists, and what was not in the vocabulary."""
    if not holds_lists(feature):
        # Most columns hold numbers that are all known: finding the distinct ones first would take ten times as long.
        numbers = column.integers()
        ids = None if numbers is None else vocabulary.ids_of_numbers(numbers)
        if ids is not None:
            return ids, None
    reading = read(feature, column)
    cells = cells_of(reading)
    known = vocabulary.ids(cells)
    ids = np.append(known, MISSING_ID).astype(np.int32)[cells.codes]
    unseen = _find_unseen(cells, known)
    if isinstance(reading, Lists):
        ids = _pad(feature, ids, reading, length or 0, vocabulary.num_ids)
    return ids, unseen


def _find_unseen(cells: Cells, ids: np.ndarray) -> Unseen | None:
    unknown = ids == UNKNOWN_ID
    count = int(cells.counts[unknown].sum())
    if not count:
        return None
    most = np.argsort(-cells.counts[unknown], kind="stable")[:5]
    return Unseen(count, count / len(cells.codes), tuple(cells.values[unknown][most].tolist()))


def _pad(feature: IdFeature, ids: np.ndarray, lists: Lists, length: int, num_ids: int) -> np.ndarray:
    """Sequences keep their last values in order; multi-hot cells their first different ones. Padded right with 0."""
    rows = lists.rows
    if isinstance(feature, Categorical):
        rows, ids = _distinct(rows, ids, num_ids)
    counts = np.bincount(rows, minlength=lists.num_rows)
    positions = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    if isinstance(feature, Sequence):
        positions = positions - np.maximum(counts - length, 0)[rows]
    keep = (positions >= 0) & (positions < length)
    padded = np.zeros((lists.num_rows, length), dtype=np.int32)
    padded[rows[keep], positions[keep]] = ids[keep]
    return padded


def _distinct(rows: np.ndarray, ids: np.ndarray, num_ids: int) -> tuple[np.ndarray, np.ndarray]:
    first = ~pd.Series(rows * num_ids + ids).duplicated().to_numpy()
    return rows[first], ids[first]


def fit_length(feature: IdFeature, vocabulary: Vocabulary, reading: Cells | Lists) -> int | None:
    """The most values a cell holds, for multi-hot features that do not say."""
    if not isinstance(reading, Lists):
        return None
    if isinstance(feature, Sequence):
        return feature.length
    cells = reading.cells
    rows, _ = _distinct(reading.rows, vocabulary.ids(cells)[cells.codes], vocabulary.num_ids)
    most = int(np.bincount(rows).max())
    if feature.length is not None and most > feature.length:
        longer = int((np.bincount(rows) > feature.length).sum())
        logger.warning(
            "`%s`: %d of %d rows hold more than length=%d values (up to %d); the rest of each is dropped",
            cells.column, longer, reading.num_rows, feature.length, most,
        )  # fmt: skip
    return feature.length or most
