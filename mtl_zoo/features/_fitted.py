"""What a transform learns from the training table, and the arrays and tensors that it gives with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from collections.abc import Sequence as SequenceABC
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features._columns import EMPTY, Column, check_columns
from mtl_zoo.features._states import STATES, ColumnType, State, Unseen
from mtl_zoo.features.base import Feature, Summary, features_to_config
from mtl_zoo.features.requests import InputSpec

States = dict[tuple[str, str], State]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The state of a fitted transform.

    Args:
        features: The features, their sizes known.
        columns: What each column held in the training table.
        states: What features learned, by `Feature.state_key`.
        summaries: By feature name.
    """

    features: tuple[Feature, ...]
    columns: dict[str, ColumnType]
    states: States
    summaries: dict[str, Summary]

    def state_of(self, feature: Feature) -> Any:
        """What the feature learned, or None."""
        return None if feature.state_key is None else self.states[feature.state_key]

    def encode(self, frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, Unseen]]:
        """Arrays by input name, and the values that were in no vocabulary, by feature."""
        columns = read_columns(self.features, frame)
        arrays: dict[str, np.ndarray] = {}
        unseen: dict[str, Unseen] = {}
        for feature in self.features:
            column, fitted = columns[feature.source], self.columns[feature.source]
            fitted.check(column, feature.name)
            encoded, new = feature.encode(self.state_of(feature), column, fitted)
            arrays |= encoded
            if new is not None:
                unseen[feature.name] = new
        return arrays, unseen

    def readers(self) -> dict[str, list[Feature]]:
        """The features that read each column."""
        readers: dict[str, list[Feature]] = {}
        for feature in self.features:
            readers.setdefault(feature.source, []).append(feature)
        return readers

    def raw_forms(self) -> dict[str, InputSpec]:
        """How an exported model takes each column."""
        return {name: form for name, form, _ in self._raw_columns()}

    def _raw_columns(self) -> Iterator[tuple[str, InputSpec, Feature | None]]:
        """Each column, its form, and the feature whose form it is if its readers agree on one of their own."""
        for name, readers in self.readers().items():
            forms = {feature.raw_form() for feature in readers}
            form = next(iter(forms)) if len(forms) == 1 else None
            if form is None and any(form and form.meaning for form in forms):
                raise ValueError(
                    f"`{name}` must be read in one way by all features of an exported model, which takes it once. "
                    f"Received: {[feature.name for feature in readers]}. Give them columns of their own, copies of it."
                )
            yield name, form or self.columns[name].raw_form, readers[0] if form else None

    def raw_arrays(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The table's columns in their `raw_forms`."""
        columns = read_columns(self.features, frame)
        arrays = {}
        for name, _, feature in self._raw_columns():
            self.columns[name].check(columns[name], name)
            reads = self.columns[name] if feature is None else feature
            arrays[name] = reads.raw_array(columns[name])
        return arrays

    def warm_up(self) -> None:
        """Makes what states make at the first use, before several threads encode."""
        for state in self.states.values():
            state.warm_up()

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
        about = {"features": features_to_config(self.features), **facts, **small}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for entry in sorted(large, key=lambda entry: entry[0]):
            digest.update(json.dumps(entry, default=str).encode())
        return digest.hexdigest()

    def in_graph(self) -> Any:
        """A `tf.Module` from raw tensors by column name to arrays by input name; it holds the lookup tables."""
        return _make_graph(self)


def read_columns(features: SequenceABC[Feature], frame: pd.DataFrame) -> dict[str, Column]:
    sources = dict.fromkeys(feature.source for feature in features)
    check_columns(frame, sources)
    return {name: Column(name, frame[name]) for name in sources}


def fit(features: SequenceABC[Feature], frame: pd.DataFrame) -> tuple[Fitted, dict[str, Column]]:
    """The state learned from `frame`, and its columns."""
    columns = read_columns(features, frame)
    for feature in features:
        if columns[feature.source].kind == EMPTY:
            raise ValueError(
                f"`{feature.source}` must hold a value to fit feature {feature.name!r}. Received: {len(frame)} rows, "
                "all missing"
            )
    readings = {feature.name: feature.read(columns[feature.source]) for feature in features}
    sharing: dict[Any, list[Feature]] = {}
    for feature in features:
        sharing.setdefault(feature.state_key or feature.name, []).append(feature)
    states: States = {}
    for key, group in sharing.items():
        state = group[0].fit([(feature, readings[feature.name]) for feature in group])
        if state is not None:
            states[key] = state
    sized = tuple(f.sized(states.get(f.state_key), readings[f.name]) for f in features)  # type: ignore[arg-type]
    summaries = {feature.name: feature.summarize(readings[feature.name]) for feature in features}
    types = {name: ColumnType.of(column) for name, column in columns.items()}
    return Fitted(sized, types, states, summaries), columns


def _make_graph(fitted: Fitted) -> Any:
    import tensorflow as tf

    class TransformGraph(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="feature_transform")
            lookups: dict[Any, Any] = {key: state.in_graph() for key, state in fitted.states.items()}
            self._lookup_of = lookups.get
            # What an export must hold, by names that TensorFlow can write.
            held = {"/".join(key): lookup for key, lookup in lookups.items() if isinstance(lookup, tf.Module)}
            self.tables = held

        def __call__(self, raw: dict[str, Any]) -> dict[str, Any]:
            raw = _checked(fitted, raw)
            encoded: dict[str, Any] = {}
            for feature in fitted.features:
                encoded |= feature.encode_in_graph(self._lookup_of(feature.state_key), raw[feature.source])
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
