"""Tables of their own for what is known of items and users, which rows name by an id."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import STRING, Column, check_columns, read_table, refuse_values
from mtl_zoo.features.base import SIDES, Feature
from mtl_zoo.features.vocabularies import Listed


@dataclasses.dataclass(frozen=True, eq=False)
class EntityTable:
    """A table with one row an entity (an item, a user), whose ids stand in the rows that a model learns from.

    A feature of a `FeatureTransform` whose column is in this table is read from it, through the id of each row. Its
    values are encoded once an entity, whatever the number of rows. An id that is missing, or that the table lacks, is a
    missing entity: all its features are missing.

    Args:
        table: A pandas DataFrame, a pyarrow Table or a dict of arrays. Columns that no feature reads are ignored.
        key: Its column of ids: strings or whole numbers, each once, none missing.
        column: The column of the rows that holds the ids. Default: `key`.
        side: Whose table it is, `"user"` or `"item"`: the `side` of features that are read from it and have none of
            their own. Default: None, neither's.
        name: Names the table, as in `Categorical("genre", column="items.genre")`, which reads the column `genre` of
            the table `items` whatever else has a column of that name. Default: `key`.

    Raises:
        ValueError: The table lacks `key`, or holds an id twice or none in a row.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import Categorical, EntityTable, FeatureTransform
    >>> films = pd.DataFrame({"film": [7, 8, 9], "genre": ["crime", "drama", "war"]})
    >>> ratings = pd.DataFrame({"user": ["Ann", "Bob", "Ann"], "film": [7, 7, 8]})
    >>> features = [Categorical("user"), Categorical("film"), Categorical("genre")]
    >>> transform = FeatureTransform(features, entities=EntityTable(films, key="film")).fit(ratings)
    >>> transform.encode({"user": ["Bob", "Bob", "Bob"], "film": [8, 9, 5]})["genre"].tolist()
    [3, 1, 0]
    """

    table: Any = dataclasses.field(repr=False)
    key: str
    column: str | None = dataclasses.field(default=None, kw_only=True)
    side: str | None = dataclasses.field(default=None, kw_only=True)
    name: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for argument in ("key", "column"):
            value = getattr(self, argument)
            if not (isinstance(value, str) and value) and not (argument == "column" and value is None):
                raise ValueError(f"`{argument}` must name a column. Received: {argument}={value!r}")
        check.check_choice("side", self.side, SIDES)
        if self.name is not None:
            check.check_name("name", self.name, keeps="key")
        check_columns(self.frame, [self.key])
        self.keys  # noqa: B018 - refuses what cannot be a key

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """The table as a DataFrame."""
        return read_table(self.table)

    @property
    def title(self) -> str:
        """What columns are prefixed by: `name`, or `key`."""
        return self.name or self.key

    @property
    def source(self) -> str:
        """The column of the rows that holds the ids."""
        return self.column or self.key

    @functools.cached_property
    def keys(self) -> Listed:
        """The ids, in the order of the table's rows: row i has the id 2 + i, as values of a vocabulary have."""
        column = Column(self.key, self.frame[self.key])
        cells = column.cells()
        shown = self.frame[self.key].to_numpy(dtype=object)
        refuse_values(self.key, "must hold an id in every row of an entity table", cells.codes < 0, shown)
        twice = (cells.counts > 1)[cells.codes]
        refuse_values(self.key, "must hold each id once in an entity table", twice, shown)
        return Listed(cells.as_text() if cells.kind == STRING else cells.whole_numbers())

    def columns_of(self, source: str) -> list[str]:
        """The columns that a feature with this column may mean."""
        names = [source]
        if source.startswith(f"{self.title}."):
            names.append(source.removeprefix(f"{self.title}."))
        return [name for name in names if name != self.key and name in self.frame.columns]

    def with_columns(self, columns: Sequence[str]) -> EntityTable:
        """The table with its key and these columns alone."""
        check_columns(self.frame, [self.key, *columns])
        kept = self.frame[[self.key, *dict.fromkeys(columns)]].reset_index(drop=True)
        return dataclasses.replace(self, table=kept)


def as_tables(entities: EntityTable | Sequence[EntityTable]) -> tuple[EntityTable, ...]:
    """`entities` as a checked tuple, each of a name of its own."""
    tables = (entities,) if isinstance(entities, EntityTable) else tuple(entities)
    for table in tables:
        if not isinstance(table, EntityTable):
            raise TypeError(f"`entities` must be an EntityTable, or a list of them. Received: {table!r:.200}")
    check.check_unique_names("entities", [table.title for table in tables])
    return tables


def replaced(tables: Sequence[EntityTable], entities: EntityTable | Sequence[EntityTable]) -> tuple[EntityTable, ...]:
    """`tables`, those that `entities` names given anew.

    Raises:
        ValueError: `entities` names one that is not there, or that other rows' ids lead to.
    """
    new = {table.title: table for table in as_tables(entities)}
    old = {table.title: table for table in tables}
    unknown = [name for name in new if name not in old]
    if unknown or not new:
        raise ValueError(
            f"`entities` must be new tables for some of {list(old)}, by name (default: by key). Received: {list(new)}"
        )
    for name, table in new.items():
        first = old[name]
        if table.source != first.source or table.keys.is_text != first.keys.is_text:
            kinds = ["strings" if t.keys.is_text else "whole numbers" for t in (first, table)]
            raise ValueError(
                f"`entities` must be found by the ids that the transform knows: {kinds[0]} in column "
                f"{first.source!r}. Received: {kinds[1]} in column {table.source!r} for {name!r}"
            )
    return tuple(new.get(table.title, table) for table in tables)


def with_sides(features: Sequence[Feature], tables: Sequence[EntityTable]) -> tuple[Feature, ...]:
    """The features, with the side of the table that each is read from if it has none of its own."""
    sides = {name: table.side for table, reads in homes(features, tables) for name in reads}
    return tuple(
        dataclasses.replace(f, side=sides[f.name]) if f.side is None and sides.get(f.name) else f for f in features
    )


def homes(features: Sequence[Feature], tables: Sequence[EntityTable]) -> list[tuple[EntityTable, dict[str, str]]]:
    """Each table that a feature is read from, and the columns that it gives, by feature.

    Raises:
        ValueError: A feature's column is in two tables.
    """
    reads: dict[str, dict[str, str]] = {table.title: {} for table in tables}
    for feature in features:
        hits = [(table.title, column) for table in tables for column in table.columns_of(feature.source)]
        if len(hits) > 1:
            shown = [f"{title}.{column}" for title, column in hits]
            raise ValueError(
                f"`column` must say which entity table feature {feature.name!r} is read from. Received: "
                f"{feature.source!r}, which may be each of {shown}. Name one: column={shown[0]!r}"
            )
        for title, column in hits:
            reads[title][feature.name] = column
    return [(table, reads[table.title]) for table in tables if reads[table.title]]


def take_rows(frame: pd.DataFrame, rows: np.ndarray, missing: bool) -> pd.DataFrame:
    """Some rows of a table and, if `missing`, one row more that holds nothing; whole numbers stay whole."""
    taken = frame.iloc[rows].reset_index(drop=True)
    if not missing:
        return taken
    for name in taken.columns:
        dtype = taken[name].dtype
        if isinstance(dtype, np.dtype) and dtype.kind in "iub":
            taken[name] = taken[name].convert_dtypes()  # NumPy's own have no room for a missing value
    return taken.reindex(range(len(taken) + 1))
