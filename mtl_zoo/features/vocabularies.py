"""Values become ids: 0 missing or padding, 1 out of vocabulary, 2.. values."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo._files import name_within
from mtl_zoo._registry import Registry
from mtl_zoo.features._columns import EMPTY, MISSING_INTEGER, STRING, Cells
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
    """A vocabulary of values in the order of their ids: int64, or strings."""

    values: np.ndarray
    index: pd.Index = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
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
        values = cells.as_text() if self.is_text else cells.whole_numbers()
        positions = self.index.get_indexer(pd.Index(values, dtype=values.dtype))
        return np.where(positions < 0, UNKNOWN_ID, positions + FIRST_ID)

    def given(self) -> tuple[Any, ...]:
        return tuple(self.values.tolist())

    def warm_up(self) -> None:
        # pandas makes the hash table at the first use, which two threads must not do at once.
        self.index.get_indexer(self.index[:1])

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        values = pa.array(self.values, type=pa.large_string() if self.is_text else pa.int64())
        pq.write_table(pa.table({"value": values}), folder / f"{stem}.parquet", write_page_checksum=True)
        return {"kind": self.kind, "file": f"{stem}.parquet"}

    @classmethod
    def read_own(cls, folder: Path, config: dict[str, Any]) -> Listed:
        path = name_within(folder, config["file"], "a transform")
        values = pq.read_table(path, page_checksum_verification=True)["value"]
        is_text = not pa.types.is_integer(values.type)
        return cls(np.asarray(values.to_pandas(), dtype=object if is_text else np.int64))

    def identity(self) -> Any:
        return [type(self).__name__, self.values.tolist()]

    def in_graph(self) -> Any:
        return _listed_in_graph(self)


def _listed_in_graph(vocabulary: Listed) -> Any:
    import tensorflow as tf

    class ListedInGraph(tf.Module):
        """The lookup table of a list, which an export must hold."""

        def __init__(self) -> None:
            super().__init__(name="vocabulary")
            # The missing value comes along, since a table must not be empty; it is known before the table is asked.
            missing = "" if vocabulary.is_text else MISSING_INTEGER
            dtype = tf.string if vocabulary.is_text else tf.int64
            keys = tf.constant([missing, *vocabulary.values.tolist()], dtype)
            ids = tf.concat([[MISSING_ID], tf.range(FIRST_ID, vocabulary.num_ids)], axis=0)
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
