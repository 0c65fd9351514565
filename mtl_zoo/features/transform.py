"""The transform: fitted on the training table, then table -> arrays, in pandas and in a TensorFlow graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Sequence as SequenceABC
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _validation as check
from mtl_zoo.features import _fitted, _labels, _leak, _report, _several, _storage
from mtl_zoo.features import entities as _entities
from mtl_zoo.features._columns import read_table
from mtl_zoo.features._extending import Extending
from mtl_zoo.features._growth import Growth
from mtl_zoo.features._joined import Joined
from mtl_zoo.features._states import Unseen
from mtl_zoo.features.base import Feature, InferRules, as_features
from mtl_zoo.features.batching import make_batches
from mtl_zoo.features.entities import EntityTable
from mtl_zoo.features.generated import marked
from mtl_zoo.tasks import Task, as_tasks, fit_tasks


class FeatureTransform(Extending):
    """From the columns of a table to the arrays that a model is fed.

    `fit` learns vocabularies, moments and boundaries from the training table; `extend` adds a later table's values, in
    a new transform, and nothing else learns. Values become ids:
    0 missing (NaN, None, pandas.NA, ''), 1 out of vocabulary, 2.. values, the most frequent first. 3 and 3.0 are one
    value. Numbers are scaled in float64 and given as float32. `encode` in pandas and `encode_in_graph` in TensorFlow
    give the same arrays.

    Args:
        features: What to read: `Categorical`, `Numeric`, `Text` and the others.
        tasks: What to predict; their labels, sample spaces and weights are columns of the same tables, and none of them
            may be a feature. Default: (): inputs only.
        sample_weight: Name of a column with non-negative weights of the rows, for all tasks.
        entities: Tables of what is known of items, users and the like, which rows name by an id. A feature whose column
            is in one of them is read from it. Default: none.

    Tables are pandas DataFrames, pyarrow Tables or dicts of arrays; columns that no feature reads are ignored.

    Raises:
        ValueError: A label, sample-space or weight column is also a feature's, or its column is in two entity tables.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "age": [20, 30, 40], "click": [0, 1, 0]})
    >>> transform = FeatureTransform([Categorical("city"), Numeric("age")], BinaryTask("click")).fit(table)
    >>> transform.encode(pd.DataFrame({"city": ["Oslo", None, "Bonn"], "age": [30, 30, 30]}))["city"].tolist()
    [3, 0, 1]
    >>> transform.features[0].num_ids
    4
    """

    def __init__(
        self,
        features: Feature | SequenceABC[Feature],
        tasks: Task | SequenceABC[Task] = (),
        *,
        sample_weight: str | None = None,
        entities: EntityTable | SequenceABC[EntityTable] = (),
    ):
        self._entities = _entities.as_tables(entities)
        self._specs = _entities.with_sides(as_features(features), self._entities)
        self.tasks = as_tasks(tasks) if isinstance(tasks, Task) or len(tasks) else ()
        _labels.refuse_unlabelled(self.tasks)
        if sample_weight is not None and (not isinstance(sample_weight, str) or not sample_weight):
            raise ValueError(f"`sample_weight` must name a column. Received: sample_weight={sample_weight!r}")
        self.sample_weight = sample_weight
        _labels.refuse_features(self._specs, self.tasks, sample_weight)
        self._fitted: _fitted.Fitted | None = None
        self._graph: Any = None
        self._notes: list[dict[str, Any]] = []
        self._leaks: frozenset[tuple[str, str]] = frozenset()
        self._is_frozen = False
        self._growth: dict[str, Growth] = {}
        self.unseen: dict[str, Unseen] = {}

    @classmethod
    def infer(
        cls,
        table: Any,
        tasks: Task | SequenceABC[Task],
        *,
        exclude: SequenceABC[str] = (),
        features: SequenceABC[Feature] = (),
        numeric: SequenceABC[str] = (),
        categorical: SequenceABC[str] = (),
        threshold: int = 20,
        number_encoding: str | None = "piecewise_linear",
        embedding_dim: int = 16,
        sample_weight: str | None = None,
    ) -> FeatureTransform:
        """A transform, not yet fitted, with a feature for each column of a table.

        The rules: strings, booleans, whole numbers with up to `threshold` distinct values and whole numbers named like
        an id (`id`, `user_id`, `userId`, `uid`, `sku`) become `Categorical`; other numbers `Numeric`, encoded as
        `number_encoding` says; dates and times `Datetime`; lists of measured numbers, all of one length, `Vector`;
        other lists `Sequence`. Label, sample-space and weight columns are never features. Columns with one value are
        left out; columns where every row differs are reported, unless they are named like an id. A column whose name is
        no legal feature name is renamed. What was chosen is logged, and `describe` returns it.

        Args:
            table: The training table.
            tasks: What to predict.
            exclude: Columns to leave out.
            features: Specs of your own, instead of what the rules say of their columns.
            numeric: Columns that are numbers, whatever the rules say.
            categorical: Columns that are categories (or lists of them), whatever the rules say.
            threshold: Whole numbers with at most this many distinct values are categories. Default: 20. Above it they
                are numbers, which keep their order, and are named in the log.
            number_encoding: How numbers enter a model, as `Numeric` has it: `"piecewise_linear"`, `"periodic"`, or None
                for one standardised number.
            embedding_dim: Width of the embeddings, and of encoded numbers.
            sample_weight: Name of a column with weights of the rows.

        Raises:
            ValueError: A column holds bytes, durations or mixed types; `exclude` names no column; no feature is left.

        Warns:
            UserWarning: A feature alone predicts a binary label with AUC above .999. A guess loses what a column says:
                strings that are numbers, dates or lists; many whole numbers that may be ids.

        Example:

        >>> import pandas as pd
        >>> from mtl_zoo import BinaryTask, FeatureTransform
        >>> table = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "price": [0.5, 1.5, None], "click": [0, 1, 0]})
        >>> FeatureTransform.infer(table, BinaryTask("click")).describe()[["name", "kind", "distinct", "missing"]]
            name         kind  distinct  missing
        0   city  categorical         2        0
        1  price      numeric         2        1
        """
        from mtl_zoo.features.infer import infer_features

        tasks = as_tasks(tasks)
        frame = read_table(table)
        reserved = (*_labels.label_columns(tasks), *_labels.weight_columns(tasks, sample_weight))
        rules = InferRules(embedding_dim, threshold, number_encoding)
        specs, notes = infer_features(
            frame, reserved, exclude=exclude, features=features, numeric=numeric, categorical=categorical, rules=rules
        )
        transform = cls(specs, tasks, sample_weight=sample_weight)
        transform._notes = notes
        labels = _labels.read_labels(frame, tasks)
        transform._leaks = _leak.warn_of_leaks(specs, _fitted.Training.read(specs, frame, ()), labels, tasks)
        return transform

    @property
    def specs(self) -> tuple[Feature, ...]:
        """The features as they were given, before `fit`."""
        return self._specs

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table to be scored that are read: those of features, and the ids of entities."""
        fitted = self._require_fitted()
        return tuple(name for name in fitted.readers() if name not in fitted.of_training)

    @property
    def training_columns(self) -> tuple[str, ...]:
        """The columns that only training reads: those of features with `bias=True`."""
        return self._require_fitted().of_training

    def column_of(self, feature: Feature) -> str:
        """The column of the rows' table that decides a feature: its own, or that of its entity's id."""
        return self._require_fitted().column_of(feature)

    @property
    def absent(self) -> tuple[tuple[str, ...], ...]:
        """If it was fitted on `JointSources`, the columns that each of them lacked."""
        return () if self._fitted is None else self._fitted.absent

    @property
    def is_fitted(self) -> bool:
        return self._fitted is not None

    @property
    def features(self) -> tuple[Feature, ...]:
        """The specs; once fitted, with `num_ids` and `length` known."""
        return self._specs if self._fitted is None else self._fitted.features

    def fit(self, table: Any, *, verbose: int = 1) -> FeatureTransform:
        """Learns vocabularies, moments and boundaries from the training table.

        Args:
            table: The training table, label columns included, or `JointSources`: what one of them lacks is missing in
                its rows, and may be lacking in tables that are encoded.
            verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

        Raises:
            ValueError: The table is empty or lacks a column, or a column holds what its feature or task cannot read.
                The transform is then as it was.

        Warns:
            UserWarning: A feature alone predicts a binary label with AUC above .999.
        """
        if self._is_frozen:
            raise ValueError(
                "`fit` must not be called on the transform of a model, whose tables have the rows of these ids. Fit a "
                "transform of your own, FeatureTransform(transform.specs, tasks).fit(table), and make a model with it."
            )
        joined = Joined.of(self._specs, self._entities)
        columns = _fitted.readers_of(self._specs, joined)
        frame, absent = _several.training_table(table, columns, self.tasks, self.sample_weight)
        fitted, training = _fitted.fit(self._specs, frame, joined, absent, verbose)
        labels = _labels.read_labels(frame, self.tasks)
        _labels.check_spaces(labels, self.tasks)
        _labels.read_weights(frame, self.tasks, self.sample_weight)
        self._leaks = _leak.warn_of_leaks(self._specs, training, labels, self.tasks, self._leaks)
        self.tasks = fit_tasks(self.tasks, labels)
        self._fitted, self._graph, self._growth, self.unseen = fitted, None, {}, {}
        return self

    def encode(
        self, table: Any, features: SequenceABC[str] | None = None, *, verbose: int = 1
    ) -> dict[str, np.ndarray]:
        """Arrays by input name: int32 ids (n,) or (n, length), float32 numbers (n,).

        Values outside the vocabularies become id 1; they are counted in `unseen` and logged.

        Args:
            table: Needs the features' columns only, and none of features with `bias=True`, which are then missing;
                rows keep their order.
            features: Names of those that are encoded. Default: None, all.
            verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

        Raises:
            ValueError: The table is empty, lacks a column, or a column's type is not the training table's.
        """
        arrays, self.unseen = self._require_fitted().encode(read_table(table), features, verbose)
        _report.log_unseen(self.unseen)
        return arrays

    def encode_quietly(self, table: Any, features: SequenceABC[str] | None = None) -> dict[str, np.ndarray]:
        """What `encode` gives; nothing is logged, and `unseen` stays as it is: for requests, whose values are private.

        Args:
            table, features: As for `encode`.

        Raises:
            ValueError: What `encode` refuses.
        """
        return self._require_fitted().encode(read_table(table), features)[0]

    def encode_in_pieces(self, table: Any, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """What `encode` gives, `rows` rows at a time and in their order: a large table is never encoded whole.

        `unseen` and the log tell of the whole table, once the last piece has been taken.

        Args:
            table: A pandas DataFrame or a pyarrow Table, as for `encode`.
            rows: Rows a piece.

        Raises:
            ValueError: What `encode` refuses, when the piece that holds it is reached.
        """
        fitted, cut = self._require_fitted(), table.slice if isinstance(table, pa.Table) else None
        found: dict[str, Unseen] = {}
        for start in range(0, max(len(table), 1), rows):
            piece = read_table(cut(start, rows) if cut else table.iloc[start : start + rows])
            arrays, unseen = fitted.encode(piece)
            _report.add_unseen(found, unseen, len(piece) / len(table))
            yield arrays
        self.unseen = found
        _report.log_unseen(self.unseen)

    def encode_labels(self, table: Any, whole: bool = True) -> dict[str, np.ndarray]:
        """float32 (n,) label arrays by task name, and by name each sample-space column that is no task.

        NaN where a label is missing; a multi-class label is its position in `classes`. Of a table with rows that
        `generate_rows` made there is `mtl_zoo_generated` too, so that none of them judges a model as an array.

        Args:
            table: With the columns of the labels.
            whole: Whether every task must have a label in some row; False for a few rows of a table. Default: True.

        Raises:
            ValueError: A label is not one of the task's, or all labels of a task are missing.
        """
        if not self.tasks:
            raise ValueError("`tasks` must be given to read labels. Received: tasks=()")
        frame = read_table(table)
        return _several.read_labels(frame, self.tasks, self.absent, whole=whole) | marked(frame)

    def encode_weights(self, table: Any) -> np.ndarray | dict[str, np.ndarray] | None:
        """Row weights: float32 (n,) for all tasks, a dict by task name where a task names a column, or None."""
        return _several.read_weights(read_table(table), self.tasks, self.sample_weight, self.absent)

    def batches(
        self,
        table: Any,
        batch_size: int = 1024,
        shuffle: bool = False,
        seed: int | None = None,
        labels: bool = True,
        drop_remainder: bool = False,
    ) -> Any:
        """A `tf.data.Dataset` of `(inputs, labels)` or, with weights, `(inputs, labels, weights)`, dicts by name.

        Args:
            table: As for `encode`, with label columns if `labels`.
            batch_size, shuffle, seed, drop_remainder: See `make_batches`.
            labels: False gives inputs only.
        """
        frame = read_table(table)
        arrays = (self.encode(frame), *((self.encode_labels(frame), self.encode_weights(frame)) if labels else ()))
        return make_batches(*arrays, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_remainder=drop_remainder)

    def values_of(self, name: str) -> tuple[Any, ...] | None:
        """The values that ids 2, 3, ... of a feature stand for; None where they are not listed, as for numbers."""
        fitted = self._require_fitted()
        by_name = {feature.name: feature for feature in fitted.features}
        check.check_choice("name", name, tuple(by_name))
        return by_name[name].values(fitted.state_of(by_name[name]))

    def describe(self) -> pd.DataFrame:
        """A row for each feature: name, column, kind, rule, distinct values and missing ones in the training table.

        After `infer` also a row, of kind "left out", for each column that became no feature.
        """
        return _report.describe(self.features, self._fitted.summaries if self._fitted else {}, self._notes)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the fitted transform to a folder of plain files, whole or not at all.

        Raises:
            ValueError: The transform is not fitted, or the folder holds something else.
        """
        fitted = self._require_fitted()
        _storage.write(folder, self._specs, self.tasks, self.sample_weight, fitted, self._notes, self._growth)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> FeatureTransform:
        """The transform that `save` wrote.

        Raises:
            FileNotFoundError: There is none in the folder.
            ValueError: A newer version of mtl_zoo wrote it.
        """
        stored = _storage.read(folder)
        transform = cls(stored.specs, stored.tasks, sample_weight=stored.sample_weight, entities=stored.tables)
        transform._fitted, transform._notes, transform._growth = stored.fitted, stored.notes, stored.growth
        return transform

    def raw_signature(self) -> dict[str, Any]:
        """What `encode_in_graph` takes: a `tf.TensorSpec` for each column, (None,) or, for lists, (None, None).

        Strings are tf.string, ids that are whole numbers tf.int64, numbers tf.float64, booleans tf.bool (tf.float64 if
        the training table had missing ones). Missing is '' or NaN, and -2**63 among whole numbers; lists are padded
        with it. Numbers of another width are taken, too.
        """
        import tensorflow as tf

        forms = self._require_fitted().raw_forms()
        return {name: tf.TensorSpec((None, *form.shape), form.dtype, name=name) for name, form in forms.items()}

    def raw_arrays(self, table: Any) -> dict[str, np.ndarray]:
        """The columns of a table as arrays that fit `raw_signature`, for an exported model."""
        return self._require_fitted().raw_arrays(read_table(table))

    def raw_arrays_of(self, table: Any, columns: SequenceABC[str]) -> dict[str, np.ndarray]:
        """`raw_arrays` of some columns alone."""
        return self._require_fitted().raw_arrays(read_table(table), columns)

    def encode_in_graph(self, raw: dict[str, Any]) -> dict[str, Any]:
        """What `encode` gives, from tensors by column name and inside a TensorFlow graph; nothing for bias features.

        A graph cannot refuse a value: ids that `encode` refuses (negative, not whole) become id 1, and numbers that it
        refuses (NaN, infinities) become the mean of the training table. `graph` is the module that holds the lookup
        tables.
        """
        return self.graph(raw)

    @property
    def graph(self) -> Any:
        """A `tf.Module` that computes `encode_in_graph`; attach it to a module of yours to save its lookup tables."""
        fitted = self._require_fitted()
        if self._graph is None:
            self._graph = fitted.in_graph()
        return self._graph

    def __getstate__(self) -> dict[str, Any]:
        """Copies leave the graph's lookup tables behind; they are made again on first use."""
        return {**self.__dict__, "_graph": None}

    def __repr__(self) -> str:
        state = "fitted" if self.is_fitted else "not fitted"
        return f"FeatureTransform({len(self._specs)} features, {len(self.tasks)} tasks, {state})"
