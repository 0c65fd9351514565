"""What a fitted transform keeps: the type that each column had, and the states that features learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.features._columns import (
    BOOLEAN,
    BYTES,
    DATE,
    EMPTY,
    FLOAT,
    INTEGER,
    MISSING_INTEGER,
    PAIRS,
    SHOWN,
    STRING,
    Cells,
    Column,
    refuse_values,
)
from mtl_zoo.features.requests import UNKNOWN_ID, InputSpec

_NUMBERS = (INTEGER, FLOAT, BOOLEAN)
# What a missing cell, or the end of a list, is in an array of each type.
MISSING: dict[str, Any] = {"string": "", "int64": MISSING_INTEGER, "float64": np.nan}

STATES: Registry[type[State]] = Registry("family")


@dataclasses.dataclass(frozen=True)
class Unseen:
    """Values of a column that its vocabulary lacks: how many cells hold one, their share, and a sample."""

    count: int
    share: float
    values: tuple


def unseen_of(cells: Cells, ids: np.ndarray) -> Unseen | None:
    """The values of `cells` that `ids` calls unknown, or None."""
    unknown = ids == UNKNOWN_ID
    count = int(cells.counts[unknown].sum())
    if not count:
        return None
    most = np.argsort(-cells.counts[unknown], kind="stable")[:5]
    return Unseen(count, count / len(cells.codes), tuple(cells.values[unknown][most].tolist()))


class State:
    """What features of one `state_key` learned from the training table."""

    # Names the part of a saved transform that holds the states of this class.
    family: ClassVar[str]
    # Whether it may hold millions of values.
    is_large: ClassVar[bool] = False

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        """Plain data that `read` makes the state of; what is large goes to files `folder / stem + ...`."""
        raise NotImplementedError

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> State:
        raise NotImplementedError

    def identity(self) -> Any:
        """Plain data that differs where the state gives other arrays, for the hash of a transform."""
        raise NotImplementedError

    def moved_from(self, before: State) -> str:
        """Why a model that was trained with the state `before` cannot go on with this one; "" if it can.

        It can where each value has the id that it had, or stands for nothing any more.
        """
        return "" if self.identity() == before.identity() else "what it has learned differs"

    def new_ids(self, before: State) -> np.ndarray:
        """Ids whose value is another than in `before`, which `moved_from` lets follow: their rows start anew."""
        return np.zeros(0, np.int64)

    def free_ids(self) -> np.ndarray:
        """Ids that stand for no value."""
        return np.zeros(0, np.int64)

    def in_graph(self) -> Any:
        """What `encode_in_graph` gets of it; a `tf.Module` if it holds lookup tables."""
        return self

    def warm_up(self) -> None:
        """Makes what is otherwise made at the first use, before several threads use the state."""


def register_state(family: str) -> Callable[[type[State]], type[State]]:
    """Decorator that enters a class of states under the name of its part of a saved transform."""
    return STATES.register(family, keep_as="family")


def may_lack(lacking: Sequence[str], absent: Sequence[Collection[str]]) -> list[str]:
    """Of the columns that a table lacks, those that the most similar of the tables that were fitted lacked, too."""
    groups = [[name for name in lacking if name in columns] for columns in absent]
    return max(groups, key=len, default=[])


def same_kind(column: Column | ColumnType, other: Column | ColumnType) -> bool:
    """Whether two columns hold what one feature can read: numbers of any width are alike."""
    same = column.kind == other.kind or (column.kind in _NUMBERS and other.kind in _NUMBERS)
    return same and column.is_list == other.is_list


@dataclasses.dataclass(frozen=True)
class ColumnType:
    """What a column held in the training table."""

    kind: str
    is_list: bool
    has_missing: bool

    @classmethod
    def of(cls, column: Column) -> ColumnType:
        return cls(column.kind, column.is_list, bool(column.series.isna().any()))

    def check(self, column: Column, feature: str) -> None:
        """Refuses a column that now holds something else."""
        if column.kind != EMPTY and not same_kind(column, self):
            fitted = f"lists of {SHOWN[self.kind]}" if self.is_list else SHOWN[self.kind]
            raise ValueError(
                f"`{column.name}` must hold {fitted}, as in the table that feature {feature!r} was fitted on. "
                f"Received: {column.shown}, dtype {column.series.dtype}"
            )
        if self.kind == BOOLEAN and column.kind in (INTEGER, FLOAT) and not self.is_list:
            numbers = column.numbers()
            odd = ~(np.isnan(numbers) | np.isin(numbers, (0, 1)))
            rule = f"must hold booleans (or 0 and 1), as in the table that feature {feature!r} was fitted on"
            refuse_values(column.name, rule, odd, numbers)

    @property
    def raw_form(self) -> InputSpec:
        """How an exported model takes the column."""
        return InputSpec((None,) if self.is_list else (), self._dtype)

    @property
    def _dtype(self) -> str:
        if self.kind in (STRING, BYTES, PAIRS):
            return "string"
        if self.kind in (INTEGER, DATE):
            return "int64"
        if self.kind == BOOLEAN and not self.has_missing and not self.is_list:
            return "bool"
        return "float64"

    def raw_array(self, column: Column) -> np.ndarray:
        """The column in its `raw_form`."""
        dtype = self._dtype
        if self.is_list:
            return _padded_lists(column, dtype)
        if dtype == "float64":
            return column.numbers()
        cells = column.cells()
        if dtype == "bool":
            if cells.missing:
                raise ValueError(
                    f"`{column.name}` must not be missing, since no row of the training table was. "
                    f"Received: {cells.missing} of {len(cells.codes)} rows missing"
                )
            return column.numbers() != 0
        as_stored = object if dtype == "string" else dtype
        missing = np.array([MISSING[dtype]], dtype=as_stored)
        return (
            np.append(_values(cells, dtype), missing)[cells.codes]
            if len(cells.values)
            else missing.repeat(len(cells.codes))
        )


def _padded_lists(column: Column, dtype: str) -> np.ndarray:
    lists = column.lists(separator="|")
    counts = np.bincount(lists.rows, minlength=lists.num_rows)
    positions = np.arange(len(lists.rows)) - (np.cumsum(counts) - counts)[lists.rows]
    shape = (lists.num_rows, max(int(counts.max()), 1))
    padded = np.full(shape, MISSING[dtype], dtype=object if dtype == "string" else dtype)
    if len(lists.rows):
        padded[lists.rows, positions] = _values(lists.cells, dtype)[lists.cells.codes]
    return padded


def _values(cells: Cells, dtype: str) -> np.ndarray:
    return cells.whole_numbers() if dtype == "int64" else cells.values
