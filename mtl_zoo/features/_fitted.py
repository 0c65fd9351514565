"""What a transform learns from the training table, and the arrays and tensors that it gives with it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceABC
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo._progress import Bar
from mtl_zoo.features import _joined, _report
from mtl_zoo.features._columns import EMPTY, Column, check_columns
from mtl_zoo.features._joined import Joined, Listing, OfEntities
from mtl_zoo.features._several import completed
from mtl_zoo.features._states import STATES, ColumnType, State, Unseen
from mtl_zoo.features.base import Feature, Summary
from mtl_zoo.features.entities import EntityTable
from mtl_zoo.features.requests import FIRST_ID, InputSpec

States = dict[tuple[str, str], State]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The state of a fitted transform.

    Args:
        features: The features, their sizes known.
        columns: What each column held in the training table.
        states: What features learned, by `Feature.state_key`.
        summaries: By feature name.
        joined: The entity tables that features are read from.
        absent: If it was fitted on several tables, the columns that each of them lacked.
    """

    features: tuple[Feature, ...]
    columns: dict[str, ColumnType]
    states: States
    summaries: dict[str, Summary]
    joined: tuple[Joined, ...] = ()
    absent: tuple[tuple[str, ...], ...] = ()

    def state_of(self, feature: Feature) -> Any:
        """What the feature learned, or None; of one that reads lists of entities, what those have."""
        if feature.entities_of is not None:
            return Listing(self.home_of(feature).table.keys, self.of_entities[feature.entities_of].arrays)
        return None if feature.state_key is None else self.states[feature.state_key]

    def encode(
        self, frame: pd.DataFrame, names: SequenceABC[str] | None = None, verbose: int = 0
    ) -> tuple[dict[str, np.ndarray], dict[str, Unseen]]:
        """Arrays by input name, and the values that were in no vocabulary, by feature; of features of some `names`."""
        chosen = [feature for feature in self.features if names is None or feature.name in names]
        columns = self._columns_of(frame, None if names is None else map(self.column_of, chosen))
        arrays: dict[str, np.ndarray] = {}
        unseen: dict[str, Unseen] = {}
        places: dict[str, np.ndarray] = {}
        for joined in self.joined:
            source, title = joined.table.source, joined.table.title
            if source not in columns:
                continue
            places[title], lost = joined.places_of(columns[source], self.columns[source])
            if lost is not None:
                unseen[joined.report_name] = lost
        with Bar("Encoding features", len(chosen), verbose) as bar:
            for feature in chosen:
                home = self.homes.get(feature.name)
                if home is not None:
                    arrays |= self.of_entities[feature.name].rows(home, feature, places[home.table.title])
                else:
                    column, fitted = columns[feature.source], self.columns[feature.source]
                    fitted.check(column, feature.name)
                    encoded, new = feature.encode(self.state_of(feature), column, fitted)
                    arrays |= encoded
                    if new is not None:
                        unseen[feature.name] = new
                bar.advance()
        return arrays, unseen

    def home_of(self, feature: Feature) -> Joined:
        """The entity table of a feature that reads lists of its ids.

        Raises:
            ValueError: The feature whose values it gives is read from none.
        """
        home = self.homes.get(feature.entities_of or "")
        if home is None:
            raise ValueError(
                f"`of` must name a feature that is read from an entity table, for feature {feature.name!r}. Received: "
                f"of={feature.entities_of!r}. Features of entity tables: {sorted(self.homes)}"
            )
        return home

    @functools.cached_property
    def homes(self) -> dict[str, Joined]:
        """The entity table that each feature is read from, of those that are."""
        return {name: joined for joined in self.joined for name in joined.reads}

    @functools.cached_property
    def of_entities(self) -> dict[str, OfEntities]:
        """What each feature of an entity table gives of all entities, encoded once."""
        return {
            f.name: OfEntities.of(self.homes[f.name], f, self.state_of(f), self.columns[f.source])
            for f in self.features
            if f.name in self.homes
        }

    def with_tables(self, tables: SequenceABC[EntityTable]) -> Fitted:
        """What was learned, with other entity tables, whose values are encoded at once."""
        by_title = {table.title: table for table in tables}
        joined = tuple(joined.with_table(by_title[joined.table.title]) for joined in self.joined)
        changed = dataclasses.replace(self, joined=joined)
        _report.log_unseen(_joined.unseen_of(changed.of_entities), "In entity tables: ")
        return changed

    def column_of(self, feature: Feature) -> str:
        """The column of the rows' table that decides the feature: its own, or that of its entity's id."""
        home = self.homes.get(feature.name)
        return feature.source if home is None else home.table.source

    def readers(self) -> dict[str, list[Feature]]:
        """What reads each column of the rows' table: features, or an entity table by its ids."""
        return readers_of(self.features, self.joined)

    @functools.cached_property
    def of_training(self) -> tuple[str, ...]:
        """The columns that only features with `bias=True` read: tables and requests to be scored may lack them."""
        return tuple(name for name, readers in self.readers().items() if all(feature.bias for feature in readers))

    def raw_forms(self) -> dict[str, InputSpec]:
        """How an exported model takes each column."""
        return {name: form for name, form, _ in self._raw_columns()}

    def _raw_columns(self) -> Iterator[tuple[str, InputSpec, Feature | None]]:
        """Each column, its form, and the feature whose form it is if its readers agree on one of their own."""
        for name, readers in self.readers().items():
            if name in self.of_training:
                continue
            forms = {feature.raw_form() for feature in readers}
            form = next(iter(forms)) if len(forms) == 1 else None
            if form is None and any(form and form.meaning for form in forms):
                raise ValueError(
                    f"`{name}` must be read in one way by all features of an exported model, which takes it once. "
                    f"Received: {[feature.name for feature in readers]}. Give them columns of their own, copies of it."
                )
            yield name, form or self.columns[name].raw_form, readers[0] if form else None

    def raw_arrays(self, frame: pd.DataFrame, only: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The table's columns, or `only` some, in their `raw_forms`."""
        columns = self._columns_of(frame, only)
        arrays = {}
        for name, _, feature in self._raw_columns():
            if name not in columns:
                continue
            self.columns[name].check(columns[name], name)
            reads = self.columns[name] if feature is None else feature
            arrays[name] = reads.raw_array(columns[name])
        return arrays

    def _columns_of(self, frame: pd.DataFrame, only: Iterable[str] | None = None) -> dict[str, Column]:
        names = list(dict.fromkeys(self.readers() if only is None else only))
        fills: dict[str, float | None] = dict.fromkeys(names)
        frame = completed(frame, [self.of_training], fills)
        return read_columns(names, completed(frame, self.absent, fills))

    def warm_up(self) -> None:
        """Makes what states make at the first use, before several threads encode."""
        for state in self.states.values():
            state.warm_up()
        for joined in self.joined:
            joined.table.keys.warm_up()
        self.of_entities  # noqa: B018 - made at the first look

    def hash_with(self, facts: dict[str, Any]) -> str:
        """A hash of all that decides the arrays that the transform gives, `facts` included."""
        # As 0.1.0 wrote it: what is small in one text, every vocabulary in one of its own.
        small: dict[str, Any] = {"moments": {}}
        large = []
        for (family, key), state in self.states.items():
            if STATES[family].is_large:
                large.append([key, *state.identity()])
            else:
                small.setdefault(family, {})[key] = state.identity()
        if self.joined:
            small["entities"] = [joined.identity() for joined in self.joined]
            small["of_entities"] = {name: encoded.digest() for name, encoded in self.of_entities.items()}
        about = {"features": [feature.identity() for feature in self.features], **facts, **small}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for entry in sorted(large, key=lambda entry: entry[0]):
            digest.update(json.dumps(entry, default=str).encode())
        return digest.hexdigest()

    def in_graph(self) -> Any:
        """A `tf.Module` from raw tensors by column name to arrays by input name; it holds the lookup tables."""
        return _make_graph(self)


def readers_of(features: Iterable[Feature], joined: Iterable[Joined]) -> dict[str, list[Feature]]:
    readers: dict[str, list[Feature]] = {}
    from_entities = {name for table in joined for name in table.reads}
    for feature in features:
        if feature.name not in from_entities:
            readers.setdefault(feature.source, []).append(feature)
    for table in joined:
        readers.setdefault(table.table.source, []).append(table.reader)
    return readers


def read_columns(sources: Iterable[str], frame: pd.DataFrame) -> dict[str, Column]:
    sources = dict.fromkeys(sources)
    check_columns(frame, sources)
    return {name: Column(name, frame[name]) for name in sources}


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The training table as `fit` read it.

    Args:
        columns: What features read, by `Feature.source`: a cell a row, or an entity that occurs.
        places: Of each feature of an entity table, the cell of its column by row; -1 where a row has no entity.
    """

    columns: dict[str, Column]
    places: dict[str, np.ndarray]

    @classmethod
    def read(cls, features: SequenceABC[Feature], frame: pd.DataFrame, joined: SequenceABC[Joined]) -> Training:
        columns = read_columns(readers_of(features, joined), frame)
        by_name = {feature.name: feature for feature in features}
        places = {}
        for table in joined:
            ids = columns[table.table.source]
            table.check_ids(ids)
            of_rows, _ = table.places_of(ids, ColumnType.of(ids))
            named, cells = np.unique(of_rows, return_inverse=True)
            lost = int((named < FIRST_ID).sum())
            for name in table.reads:
                feature = by_name[name]
                if feature.source in frame.columns:
                    raise ValueError(
                        f"`column` must say where feature {name!r} is read from, since both the table and the entity "
                        f"table {table.table.title!r} have a column {feature.source!r}. Received: "
                        f"column={feature.column!r}. Leave it out of one, or write column="
                        f"'{table.table.title}.{table.reads[name]}'"
                    )
                columns[feature.source] = table.column_for_fit(feature, named)
                places[name] = np.maximum(cells - lost, -1)
        return cls(columns, places)


def fit(
    features: SequenceABC[Feature],
    frame: pd.DataFrame,
    joined: tuple[Joined, ...] = (),
    absent: tuple[tuple[str, ...], ...] = (),
    verbose: int = 0,
) -> tuple[Fitted, Training]:
    """The state learned from `frame`, which is several tables if `absent` has their columns, and what was read."""
    training = Training.read(features, frame, joined)
    columns = training.columns
    for feature in features:
        if columns[feature.source].kind == EMPTY:
            raise ValueError(
                f"`{feature.source}` must hold a value to fit feature {feature.name!r}. Received: "
                f"{len(columns[feature.source].series)} rows, all missing"
            )
    sharing: dict[Any, list[Feature]] = {}
    for feature in features:
        sharing.setdefault(feature.state_key or feature.name, []).append(feature)
    readings: dict[str, Any] = {}
    states: States = {}
    with Bar("Fitting features", len(features) + len(sharing), verbose) as bar:
        for feature in features:
            readings[feature.name] = feature.read(columns[feature.source])
            bar.advance()
        for key, group in sharing.items():
            teach = [feature for feature in group if not feature.borrows] or group
            state = teach[0].fit([(feature, readings[feature.name]) for feature in teach])
            if state is not None:
                states[key] = state
            bar.advance()
    sized = beside(f.sized(states.get(f.state_key), readings[f.name]) for f in features)  # type: ignore[arg-type]
    summaries = {feature.name: feature.summarize(readings[feature.name]) for feature in features}
    types = {name: ColumnType.of(column) for name, column in columns.items()}
    fitted = Fitted(sized, types, states, summaries, joined, absent)
    for feature in sized:
        if feature.entities_of is not None:
            fitted.home_of(feature).check_ids(columns[feature.source])
    return fitted, training


def beside(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """The features, whose sizes are known now, each beside the others."""
    sized = tuple(features)
    return tuple(feature.beside(sized) if feature.entities_of else feature for feature in sized)


def _make_graph(fitted: Fitted) -> Any:
    import tensorflow as tf

    class TransformGraph(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="feature_transform")
            lookups: dict[Any, Any] = {key: state.in_graph() for key, state in fitted.states.items()}
            # What an export must hold, by names that TensorFlow can write.
            held = {"/".join(key): lookup for key, lookup in lookups.items() if isinstance(lookup, tf.Module)}
            self.entities = {
                joined.table.title: _joined.in_graph(joined, {name: fitted.of_entities[name] for name in joined.reads})
                for joined in fitted.joined
            }
            self._read = {f.name: f.in_graph(self._lookup_of(f, lookups)) for f in fitted.features}
            held |= {name: read for name, read in self._read.items() if isinstance(read, tf.Module)}
            self.tables = held

        def _lookup_of(self, feature: Feature, lookups: dict[Any, Any]) -> Any:
            if feature.entities_of is not None:
                return self.entities[fitted.home_of(feature).table.title]
            return lookups.get(feature.state_key)

        def __call__(self, raw: dict[str, Any]) -> dict[str, Any]:
            raw = _checked(fitted, raw)
            encoded: dict[str, Any] = {}
            places = {title: table.places(raw) for title, table in self.entities.items()}
            for feature in [feature for feature in fitted.features if not feature.bias]:
                home = fitted.homes.get(feature.name)
                if home is not None:
                    encoded |= self.entities[home.table.title].rows(feature, places[home.table.title])
                    continue
                encoded |= feature.encode_in_graph(self._read[feature.name], raw[feature.source])
            return encoded

    # Tables made while a function is traced would live in that function's graph only.
    with tf.init_scope():
        return TransformGraph()


def _checked(fitted: Fitted, raw: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    forms = fitted.raw_forms()
    missing = [name for name in forms if name not in raw]
    if missing:
        raise ValueError(f"`raw` must hold the features' columns. Received without: {missing}. Expected: {list(forms)}")
    tensors = {}
    for name, form in forms.items():
        tensor = tf.convert_to_tensor(raw[name])
        if tensor.dtype.is_integer and form.dtype in ("int64", "float64"):
            tensor = tf.cast(tensor, tf.int64)  # -2**63 is missing, whatever the training table held
        elif tensor.dtype.is_floating and form.dtype == "float64":
            tensor = tf.cast(tensor, tf.float64)
        elif tensor.dtype.name != form.dtype:
            raise ValueError(f"`{name}` must be {form.dtype}, as in the training table. Received: {tensor.dtype.name}")
        tensors[name] = tensor
    return tensors
