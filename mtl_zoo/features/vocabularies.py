"""Values become ids: 0 missing or padding, 1 out of vocabulary, 2.. values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo._files import name_within
from mtl_zoo._registry import Registry
from mtl_zoo.features._columns import EMPTY, MISSING_INTEGER, STRING, Cells
from mtl_zoo.features._growth import Growth, GrowthRules, History, counted, grown, root_of
from mtl_zoo.features._states import State, register_state
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID

# Whole numbers that span at most so many, or so many times as many as there are, are looked up in a table.
_TABLE_ROWS, _TABLE_FACTOR = 1 << 20, 4
_WHOLE_PATTERN = "[0-9]{1,18}"

VOCABULARIES: Registry[type[Vocabulary]] = Registry("kind")


@register_state("vocabularies")
class Vocabulary(State):
    """Base of the kinds of vocabularies, which share one part of a saved transform."""

    kind: ClassVar[str] = ""
    is_large: ClassVar[bool] = True

    @property
    def num_ids(self) -> int:
        """Rows of an embedding table, ids 0 and 1 included."""
        raise NotImplementedError

    def ids(self, cells: Cells) -> np.ndarray:
        """The id of each distinct value."""
        raise NotImplementedError

    def ids_of_numbers(self, numbers: np.ndarray) -> np.ndarray | None:
        """Ids of int64 numbers if all of them are known and it can be asked quickly; else None."""
        return None

    def given(self) -> tuple[Any, ...] | None:
        """Its values as a feature's `vocabulary` holds them, if it has any."""
        return None

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Vocabulary:
        return VOCABULARIES[config["kind"]].read_own(folder, config)

    @classmethod
    def read_own(cls, folder: Path, config: dict[str, Any]) -> Vocabulary:
        """What `write` of this kind wrote."""
        raise NotImplementedError

    def identity(self) -> Any:
        return [type(self).__name__, self.num_ids]


def _any_text(text: Any) -> Any:
    import tensorflow as tf

    return tf.ones_like(text, dtype=tf.bool)


def _register(kind: str) -> Any:
    def register(cls: type[Vocabulary]) -> type[Vocabulary]:
        VOCABULARIES.add(kind, cls)
        cls.kind = kind
        return cls

    return register


@_register("listed")
@dataclasses.dataclass(frozen=True, eq=False)
class Listed(Vocabulary):
    """A vocabulary of values in the order of their ids: int64, or strings.

    An id whose value was evicted holds the missing value, and stands for none until a new value takes it.

    Args:
        values: In the order of their ids.
        history: Of a vocabulary that was extended.
    """

    values: np.ndarray
    history: History | None = None
    index: pd.Index = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", pd.Index(self.values[~self.free], dtype=self.values.dtype))

    @functools.cached_property
    def free(self) -> np.ndarray:
        """Which ids from 2 on stand for no value."""
        if self.history is None:  # only an extension evicts
            return np.zeros(len(self.values), bool)
        return np.asarray(self.values == ("" if self.is_text else MISSING_INTEGER), bool)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        """The id of each value of `index`, and at the end that of an unknown one."""
        return np.append(np.flatnonzero(~self.free) + FIRST_ID, UNKNOWN_ID)

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
        values = self.values[~self.free]
        if not len(values):
            return None
        lowest, highest = int(values.min()), int(values.max())
        if highest - lowest >= max(_TABLE_ROWS, _TABLE_FACTOR * len(values)):
            return None
        table = np.zeros(highest - lowest + 1, np.int32)
        table[values - lowest] = self._ids[:-1]
        return lowest, table

    def ids_of_numbers(self, numbers: np.ndarray) -> np.ndarray | None:
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
        return self.ids_of(self._read(cells))

    def _read(self, cells: Cells) -> np.ndarray:
        return cells.as_text() if self.is_text else cells.whole_numbers()

    def ids_of(self, values: np.ndarray) -> np.ndarray:
        """The ids of values of its own type."""
        return self._ids[self.index.get_indexer(pd.Index(values, dtype=self.values.dtype))]

    def given(self) -> tuple[Any, ...]:
        """Its values; None where an id stands for none."""
        return tuple(None if free else value for value, free in zip(self.values.tolist(), self.free, strict=True))

    def extended(self, cells: SequenceABC[Cells], rules: GrowthRules, max_ids: int | None) -> tuple[Listed, Growth]:
        """The vocabulary with the values of another table's columns: old ids stay."""
        found = counted([(self._read(c), c.counts) for c in cells if c.kind != EMPTY], self.values.dtype)
        ids = self.ids_of(found[0])
        at = np.where(ids == UNKNOWN_ID, -1, ids - FIRST_ID)
        history = self.history or History.of_fit(self.values)
        values, history, growth = grown(self.values, self.free, history, found, at, rules, max_ids)
        return Listed(values, history), growth

    def moved_from(self, before: State) -> str:
        if not isinstance(before, Listed) or before.is_text != self.is_text:
            return f"its values are of another type, {self!r:.80} after {before!r:.80}"
        known = ~before.free
        ids = self.ids_of(before.values[known])
        own = np.flatnonzero(known) + FIRST_ID
        moved = (ids != UNKNOWN_ID) & (ids != own)
        if moved.any():
            first = [(before.values[i - FIRST_ID], i, j) for i, j in zip(own[moved][:3], ids[moved], strict=False)]
            shown = ", ".join(f"{value!r} has id {j} and had {i}" for value, i, j in first)
            return f"{int(moved.sum())} of its {len(own)} values have other ids: {shown}"
        lost = int((ids == UNKNOWN_ID).sum())
        if lost and (self.history is None or self.history.root != _root(before)):
            return f"{lost} of its {len(own)} values have no id any more, and no extension evicted them"
        return ""

    def new_ids(self, before: Listed) -> np.ndarray:  # type: ignore[override]
        kept = self.values[: len(before.values)] == before.values
        return np.append(np.flatnonzero(~kept), np.arange(len(before.values), len(self.values))) + FIRST_ID

    def free_ids(self) -> np.ndarray:
        return np.flatnonzero(self.free) + FIRST_ID

    def warm_up(self) -> None:
        # pandas makes the hash table at the first use, which two threads must not do at once.
        self.index.get_indexer(self.index[:1])

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        values = pa.array(self.values, type=pa.large_string() if self.is_text else pa.int64())
        pq.write_table(pa.table({"value": values}), folder / f"{stem}.parquet", write_page_checksum=True)
        kept = {"kind": self.kind, "file": f"{stem}.parquet"}
        return kept if self.history is None else {**kept, "history": self.history.write(folder, stem)}

    @classmethod
    def read_own(cls, folder: Path, config: dict[str, Any]) -> Listed:
        path = name_within(folder, config["file"], "a transform")
        values = pq.read_table(path, page_checksum_verification=True)["value"]
        is_text = not pa.types.is_integer(values.type)
        history = History.read(folder, config["history"]) if "history" in config else None
        return cls(np.asarray(values.to_pandas(), dtype=object if is_text else np.int64), history)

    def identity(self) -> Any:
        return [type(self).__name__, self.values.tolist()]

    def in_graph(self) -> Any:
        return _listed_in_graph(self)


def _root(vocabulary: Listed) -> str:
    return root_of(vocabulary.values) if vocabulary.history is None else vocabulary.history.root


def _listed_in_graph(vocabulary: Listed) -> Any:
    import tensorflow as tf

    class ListedInGraph(tf.Module):
        """The lookup table of a list, which an export must hold."""

        def __init__(self) -> None:
            super().__init__(name="vocabulary")
            # The missing value comes along, since a table must not be empty; it is known before the table is asked.
            missing = "" if vocabulary.is_text else MISSING_INTEGER
            dtype = tf.string if vocabulary.is_text else tf.int64
            keys = tf.constant([missing, *vocabulary.index.tolist()], dtype)
            ids = tf.constant([MISSING_ID, *vocabulary.ids_of(np.asarray(vocabulary.index)).tolist()])
            start = tf.lookup.KeyValueTensorInitializer(keys, tf.cast(ids, tf.int64))
            self.table = tf.lookup.StaticHashTable(start, UNKNOWN_ID)

        num_ids = vocabulary.num_ids
        is_known_text = staticmethod(_any_text)

        def ids(self, text: Any, number: Any) -> Any:
            if not vocabulary.is_text:
                return self.table.lookup(number)
            return self.table.lookup(tf.strings.as_string(number) if text is None else text)

    return ListedInGraph()


@_register("range")
@dataclasses.dataclass(frozen=True)
class Range(Vocabulary):
    """The whole numbers 0 .. size - 1, at ids 2 .. size + 1."""

    size: int

    @property
    def num_ids(self) -> int:
        return FIRST_ID + self.size

    def moved_from(self, before: State) -> str:
        return "" if isinstance(before, Range) and before.size <= self.size else super().moved_from(before)

    def new_ids(self, before: Range) -> np.ndarray:  # type: ignore[override]
        return np.arange(before.num_ids, self.num_ids)

    def ids_of_numbers(self, numbers: np.ndarray) -> np.ndarray | None:
        if numbers.min() < 0 or numbers.max() >= self.size:
            return None
        return (numbers + FIRST_ID).astype(np.int32)

    def ids(self, cells: Cells) -> np.ndarray:
        if cells.kind == STRING:
            is_number = pd.Series(cells.values, dtype=object).str.fullmatch(_WHOLE_PATTERN).to_numpy(dtype=bool)
            cells.refuse(f"must hold the whole numbers 0 .. {self.size - 1} between separators", ~is_number)
            numbers = np.array([int(value) for value in cells.values], dtype=np.int64)
        else:
            numbers = cells.whole_numbers()
            cells.refuse(f"must hold the whole numbers 0 .. {self.size - 1}, since size={self.size}", numbers < 0)
        return np.where(numbers < self.size, numbers + FIRST_ID, UNKNOWN_ID)

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    @classmethod
    def read_own(cls, folder: Path, config: dict[str, Any]) -> Range:
        return cls(config["size"])

    def in_graph(self) -> Any:
        return _RangeInGraph(self)


@dataclasses.dataclass(frozen=True)
class _RangeInGraph:
    vocabulary: Range

    @property
    def num_ids(self) -> int:
        return self.vocabulary.num_ids

    def is_known_text(self, text: Any) -> Any:
        import tensorflow as tf

        return tf.strings.regex_full_match(text, _WHOLE_PATTERN)

    def ids(self, text: Any, number: Any) -> Any:
        import tensorflow as tf

        if number is None:
            number = tf.strings.to_number(tf.where(self.is_known_text(text), text, "0"), tf.int64)
        inside = (number >= 0) & (number < self.vocabulary.size)
        return tf.where(inside, number + FIRST_ID, tf.constant(UNKNOWN_ID, tf.int64))


@_register("hashed")
@dataclasses.dataclass(frozen=True)
class Hashed(Vocabulary):
    """Ids by the hash of a value's text, the same in every process and in a graph."""

    buckets: int

    @property
    def num_ids(self) -> int:
        return FIRST_ID + self.buckets

    def ids(self, cells: Cells) -> np.ndarray:
        import tensorflow as tf

        if not len(cells.values):
            return np.array([], dtype=np.int64)
        return tf.strings.to_hash_bucket_fast(cells.as_text().tolist(), self.buckets).numpy() + FIRST_ID

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return {"kind": self.kind, "buckets": self.buckets}

    @classmethod
    def read_own(cls, folder: Path, config: dict[str, Any]) -> Hashed:
        return cls(config["buckets"])

    def in_graph(self) -> Any:
        return _HashedInGraph(self)


@dataclasses.dataclass(frozen=True)
class _HashedInGraph:
    vocabulary: Hashed

    @property
    def num_ids(self) -> int:
        return self.vocabulary.num_ids

    def is_known_text(self, text: Any) -> Any:
        return _any_text(text)

    def ids(self, text: Any, number: Any) -> Any:
        import tensorflow as tf

        text = tf.strings.as_string(number) if text is None else text
        return tf.strings.to_hash_bucket_fast(text, self.vocabulary.buckets) + FIRST_ID


def look_up(vocabulary: Any, raw: Any) -> Any:
    """int32 ids of a tensor of raw values, in its shape.

    Args:
        vocabulary: A vocabulary in graph form. `ids(text, number)` gives int64 ids of what is neither missing nor odd,
            one of the two being None; `is_known_text(text)` tells which strings can stand for a value at all.
        raw: Strings or numbers.
    """
    import tensorflow as tf

    if raw.dtype == tf.string:
        missing, known = raw == "", vocabulary.is_known_text(raw)
        ids = vocabulary.ids(raw, None)
    else:
        missing, known, number = _whole_numbers(raw)
        ids = vocabulary.ids(None, number)
    ids = tf.where(known, ids, tf.constant(UNKNOWN_ID, tf.int64))
    return tf.cast(tf.where(missing, tf.constant(MISSING_ID, tf.int64), ids), tf.int32)


def _whole_numbers(raw: Any) -> tuple[Any, Any, Any]:
    """Which numbers are missing, which are whole, and the whole ones as int64."""
    import tensorflow as tf

    if raw.dtype.is_floating:
        whole = (tf.floor(raw) == raw) & (tf.abs(raw) < 2.0**63)
        return tf.math.is_nan(raw), whole, tf.cast(tf.where(whole, raw, tf.zeros_like(raw)), tf.int64)
    number = tf.cast(raw, tf.int64)
    return number == MISSING_INTEGER, tf.ones_like(number, dtype=tf.bool), number
