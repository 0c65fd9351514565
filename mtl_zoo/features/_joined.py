"""Entity tables in a fitted transform: each entity is encoded once, and rows take what they name."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features import entities
from mtl_zoo.features._columns import EMPTY, STRING, Column
from mtl_zoo.features._states import ColumnType, Unseen
from mtl_zoo.features.base import Feature
from mtl_zoo.features.categorical import Categorical
from mtl_zoo.features.entities import EntityTable
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID
from mtl_zoo.features.vocabularies import Listed, look_up

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """An entity table, and the features that are read from it.

    A row's place is the id of its entity as in a vocabulary of the table's keys: 0 where the row has none, 1 where the
    table lacks it, 2 + i for row i. Arrays of entities have a row for each place; the first two are the missing one.

    Args:
        table: With the columns that are read alone.
        reads: The column of each feature, by feature name.
    """

    table: EntityTable
    reads: dict[str, str]

    @classmethod
    def of(cls, features: Sequence[Feature], tables: Sequence[EntityTable]) -> tuple[Joined, ...]:
        """Of each table that a feature is read from."""
        return tuple(cls(table, reads).with_table(table) for table, reads in entities.homes(features, tables))

    def with_table(self, table: EntityTable) -> Joined:
        """The same features, read from another table."""
        return Joined(table.with_columns(list(self.reads.values())), self.reads)

    @property
    def report_name(self) -> str:
        """The name under which ids without an entity are counted."""
        return f"{self.table.title}.entity"

    @functools.cached_property
    def reader(self) -> Feature:
        """What reads the ids in the rows: a categorical whose vocabulary the keys are."""
        return Categorical(f"{check.suggest_name(self.table.title)}.entity", column=self.table.source)

    def column(self, feature: Feature) -> Column:
        """The feature's column, a cell an entity."""
        return Column(feature.source, self.table.frame[self.reads[feature.name]])

    def column_for_fit(self, feature: Feature, places: np.ndarray) -> Column:
        """The cells of the entities that some row names, each once, and one missing cell if a row names none."""
        named = np.unique(places)
        frame = self.table.frame[[self.reads[feature.name]]]
        known = named[named >= FIRST_ID] - FIRST_ID
        taken = entities.take_rows(frame, known, missing=bool((named < FIRST_ID).any()))
        return Column(feature.source, taken.iloc[:, 0])

    def check_ids(self, column: Column) -> None:
        """Refuses ids in the training rows that cannot be keys of the table."""
        if column.kind == EMPTY:
            raise ValueError(
                f"`{column.name}` must hold an id of the entity table {self.table.title!r} in some row. "
                f"Received: {len(column.series)} rows, all missing"
            )
        if (column.kind == STRING) != self.table.keys.is_text:
            keys = "strings" if self.table.keys.is_text else "whole numbers"
            raise ValueError(
                f"`{column.name}` must hold {keys}, as the key {self.table.key!r} of the entity table "
                f"{self.table.title!r} does. Received: {column.shown}"
            )

    def places_of(self, column: Column, fitted: ColumnType) -> tuple[np.ndarray, Unseen | None]:
        """The place of each row's entity, and the ids without one; a missing id is one of them."""
        fitted.check(column, self.reader.name)
        arrays, unknown = self.reader.encode(self.table.keys, column, fitted)
        places = arrays[self.reader.name]
        missing = int((places == MISSING_ID).sum())
        if missing:
            count = missing + (unknown.count if unknown else 0)
            values = (*(unknown.values if unknown else ()), None)
            unknown = Unseen(count, count / len(places), values)
        return places, unknown

    def identity(self) -> list[Any]:
        """Plain data that names the ids."""
        return [self.table.title, self.table.source, self.table.keys.identity()]


@dataclasses.dataclass(frozen=True, eq=False)
class OfEntities:
    """What a feature gives of all entities.

    Args:
        arrays: By input name, a row a place.
        unseen: Values of entities that are in no vocabulary.
        refusal: Why the feature cannot read a missing cell, if it cannot; a graph, which cannot refuse, gives zeros.
    """

    arrays: Arrays
    unseen: Unseen | None
    refusal: str

    @classmethod
    def of(cls, joined: Joined, feature: Feature, state: Any, fitted: ColumnType) -> OfEntities:
        column = joined.column(feature)
        fitted.check(column, feature.name)
        arrays, unseen = feature.encode(state, column, fitted)
        refusal = ""
        try:
            nothing = Column(feature.source, pd.Series([None], dtype=object))
            missing, _ = feature.encode(state, nothing, fitted)
        except ValueError as error:
            refusal = str(error)
            blank = {name: "" if a.dtype == object else a.dtype.type(0) for name, a in arrays.items()}
            missing = {name: np.full((1, *a.shape[1:]), blank[name], a.dtype) for name, a in arrays.items()}
        return cls({name: np.concatenate([missing[name]] * 2 + [a]) for name, a in arrays.items()}, unseen, refusal)

    def rows(self, joined: Joined, feature: Feature, places: np.ndarray) -> Arrays:
        """The arrays of rows, by the places of their entities."""
        if self.refusal:
            lost = int((places < FIRST_ID).sum())
            if lost:
                raise ValueError(
                    f"`{joined.table.source}` must name an entity of {joined.table.title!r} in every row, since "
                    f"feature {feature.name!r} cannot be missing ({self.refusal}). Received: {lost} of {len(places)} "
                    "rows without one"
                )
        return {name: array[places] for name, array in self.arrays.items()}

    def digest(self) -> str:
        """A hash of the arrays."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            plain = array.tobytes() if array.dtype != object else "\0".join(map(str, array.ravel())).encode()
            digest.update(plain)
        return digest.hexdigest()


class Listing(NamedTuple):
    """What a feature with `entities_of` reads: the ids of a table, and what the other feature gives of its entities."""

    keys: Listed
    arrays: Arrays


def in_graph(joined: Joined, encoded: dict[str, OfEntities]) -> Any:
    """A `tf.Module` from the ids of rows to the arrays of their entities, by feature; an export must hold it."""
    import tensorflow as tf

    class EntitiesInGraph(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="entities")
            self.keys = joined.table.keys.in_graph()
            # Variables, which are saved beside a graph; constants would be written into it, which may have 2 GB.
            with tf.device("CPU:0"):
                self.arrays = {
                    name: tf.Variable(array, trainable=False, name="entity", dtype=tf.as_dtype(array.dtype))
                    for of_feature in encoded.values()
                    for name, array in of_feature.arrays.items()
                }

        def places(self, raw: Any) -> Any:
            return look_up(self.keys, raw[joined.table.source])

        def rows(self, feature: Feature, places: Any) -> dict[str, Any]:
            return {name: tf.gather(self.arrays[name], places) for name in encoded[feature.name].arrays}

    return EntitiesInGraph()


def unseen_of(encoded: dict[str, OfEntities]) -> dict[str, Unseen]:
    """Values of entities that are in no vocabulary, by feature."""
    return {name: of_feature.unseen for name, of_feature in encoded.items() if of_feature.unseen}
