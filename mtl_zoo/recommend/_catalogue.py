"""The items that can be recommended, encoded once; and which columns are the user's and which the item's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import read_table
from mtl_zoo.features.entities import EntityTable, homes
from mtl_zoo.recommend._ids import id_array, is_filled

USER, ITEM, VECTOR = "user", "item", "vector"
# A column of lists with more distinct values than this is no vector for re-ranking.
_MOST_VALUES = 1000


def sides_of(transform: Any, given: Mapping[str, str]) -> dict[str, str]:
    """Whose each column of the transform is, `"user"` or `"item"`.

    Raises:
        ValueError: A column has no side, or two; `given` names another column or side.
    """
    for column, side in given.items():
        check.check_choice("sides", column, transform.columns)
        check.check_choice(f"sides[{column!r}]", side, (USER, ITEM))
    said: dict[str, set[str]] = {column: set() for column in transform.columns}
    for feature in transform.features:
        if feature.side is not None:
            said[transform.column_of(feature)].add(feature.side)
    sides = {column: {given[column]} if column in given else found for column, found in said.items()}
    none = [column for column, found in sides.items() if not found]
    if none:
        hint = ", ".join(f"{column!r}: 'user'" for column in none[:2])
        raise ValueError(
            f"`sides` must say whose the columns are that only features without a side read. Received: none for "
            f"{none}. Write sides={{{hint}}} for what comes with the user's row, or is known when "
            "the list is asked for (an hour, a device), and 'item' for what the catalogue holds; or give the features "
            "a `side`"
        )
    both = [column for column, found in sides.items() if len(found) > 1]
    if both:
        raise ValueError(
            f"`sides` must say whose the columns are that features of both sides read. Received: {both}. Write "
            f"sides={{{both[0]!r}: 'user'}}, or 'item'"
        )
    return {column: next(iter(found)) for column, found in sides.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Items as a table, and as the model's inputs. It does not change: a change makes another one.

    Args:
        frame: A row an item, with its id and all that is known of it.
        item: The column of ids.
        arrays: By input of the model, a row an item.
        vectors: Of items, a row each, if there is an index; stages of re-ranking may read them as `vector`.
        prepared: What the model makes of the items before it knows a user, if that is kept.
    """

    frame: pd.DataFrame
    item: str
    arrays: dict[str, np.ndarray]
    vectors: np.ndarray | None = None
    prepared: Any = None

    def __len__(self) -> int:
        return len(self.frame)

    @functools.cached_property
    def ids(self) -> np.ndarray:
        return id_array("items", self.frame[self.item].to_numpy())

    @functools.cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.ids)

    def find(self, ids: Any) -> np.ndarray:
        """The rows of ids; -1 for those that are not there."""
        wanted = np.asarray(ids, dtype=None if len(ids) else self.ids.dtype)
        return self._index.get_indexer(pd.Index(wanted))

    def rows_of(self, argument: str, ids: Any) -> np.ndarray:
        """The rows of ids, each once; others are refused."""
        rows = self.find(ids)
        if (rows < 0).any():
            unknown = [value for value, row in zip(ids, rows, strict=True) if row < 0]
            raise ValueError(
                f"`{argument}` must hold ids of the catalogue. Received: {len(unknown)} others, "
                f"{check.sample_values(unknown)}"
            )
        if len(np.unique(rows)) != len(rows):
            twice = check.sample_values(check.duplicates(list(ids)))
            raise ValueError(f"`{argument}` must name an id once. Received twice: {twice}")
        return rows

    @functools.cached_property
    def tensors(self) -> dict[str, Any]:
        import tensorflow as tf

        return {name: tf.constant(array) for name, array in self.arrays.items()}

    @functools.cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """What stages of re-ranking may read: the table's columns; lists as vectors."""
        found = {str(name): _readable(self.frame[name]) for name in self.frame.columns if name != self.item}
        own = {} if self.vectors is None else {VECTOR: self.vectors}
        return own | {name: values for name, values in found.items() if values is not None}


def checked_items(items: Any, item: str) -> pd.DataFrame:
    """A table of items with a column of ids, each once."""
    frame = items if isinstance(items, pd.DataFrame) else read_table(items)
    if item not in frame.columns:
        raise ValueError(
            f"`items` must have the column of ids {item!r}, or `item` must name another. Received: "
            f"{[str(name) for name in frame.columns][:20]}"
        )
    if not len(frame):
        raise ValueError("`items` must hold at least one item. Received: an empty table")
    ids = id_array(f"items[{item!r}]", frame[item].to_numpy())
    missing = int((~is_filled(ids)).sum())
    if missing:
        raise ValueError(f"`items` must have an id in every row; -1 is none. Received: {missing} rows without one")
    if not frame[item].is_unique:
        twice = check.sample_values(check.duplicates(ids))
        raise ValueError(f"`items` must hold each id once. Received twice: {twice}")
    return frame.reset_index(drop=True)


def with_entities(transform: Any, frame: pd.DataFrame, item: str) -> tuple[pd.DataFrame, list[EntityTable]]:
    """The items with what the transform's entity tables know of them, and those tables as the items now say.

    A table that is found by the ids of items is a part of the catalogue: where the items have its columns, these count.
    """
    changed = []
    for table, reads in homes(transform.specs, transform.entities):
        if table.source != item:
            continue
        wanted = list(dict.fromkeys(reads.values()))
        missing = [column for column in wanted if column not in frame.columns]
        known = table.frame.set_index(table.key)
        if missing:
            added = known[missing].reindex(pd.Index(frame[item].to_numpy()))
            frame = frame.assign(**{column: added[column].to_numpy() for column in missing})
        new = frame[[item, *wanted]].rename(columns={item: table.key})
        old = table.frame[[table.key, *wanted]]
        if not new.reset_index(drop=True).equals(old.reset_index(drop=True)):
            changed.append(dataclasses.replace(table, table=new))
    return frame, changed


def read_columns(transform: Any, columns: Sequence[str], item: str) -> list[str]:
    """What is read of an item: the columns themselves, and those of entity tables that are found by its id."""
    of_tables = [
        column
        for table, reads in homes(transform.specs, transform.entities)
        if table.source == item
        for column in reads.values()
    ]
    return list(dict.fromkeys([*columns, *of_tables]))


def check_columns(argument: str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuses a table without columns that the model reads."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"`{argument}` must have the columns that the model reads. Received without: {missing}. It has: "
            f"{[str(name) for name in frame.columns][:20]}"
        )


def encoded(transform: Any, frame: pd.DataFrame, columns: Sequence[str], argument: str) -> dict[str, np.ndarray]:
    """The model's inputs that these columns of a table decide."""
    check_columns(argument, frame, columns)
    names = [feature.name for feature in transform.features if transform.column_of(feature) in columns]
    return transform.encode_quietly(frame, names) if names else {}


def _readable(series: pd.Series) -> np.ndarray | None:
    """A column as an array that stages read; a list of numbers as a vector, other lists as one of 0 and 1."""
    first = next((value for value in series if not _is_missing(value)), None)
    if not isinstance(first, list | tuple | np.ndarray):
        return series.to_numpy()
    lists = [np.asarray([] if _is_missing(value) else value).reshape(-1) for value in series]
    if len({len(values) for values in lists}) == 1 and all(values.dtype.kind in "iufb" for values in lists):
        return np.stack(lists)
    names, codes = np.unique(np.concatenate([values.astype(str) for values in lists]), return_inverse=True)
    if len(names) > _MOST_VALUES:
        return None
    vectors = np.zeros((len(lists), len(names)), "float32")
    vectors[np.repeat(np.arange(len(lists)), [len(values) for values in lists]), codes] = 1
    return vectors


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
