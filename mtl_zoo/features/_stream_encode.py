"""What a stream reads of its files for a transform, and the arrays that the transform makes of it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_zoo.features import _labels, _report, _several
from mtl_zoo.features._columns import BOOLEAN, FLOAT, INTEGER, STRING, read_table
from mtl_zoo.features._states import Unseen
from mtl_zoo.features.batching import Layout, as_parts
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.tasks import label_names


def layout_of(transform: FeatureTransform, labels: bool) -> Layout:
    """How the arrays that a transform gives travel in batches."""
    import tensorflow as tf

    specs = {name: spec for feature in transform.features for name, spec in feature.input_specs().items()}
    inputs = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in specs.items()}
    number = tf.TensorSpec((), tf.float32)
    parts = as_parts(inputs)
    if labels:
        weights: Any = None
        if any(task.sample_weight is not None for task in transform.tasks):
            weights = {task.name: number for task in transform.tasks}
        elif transform.sample_weight is not None:
            weights = number
        parts = as_parts(inputs, dict.fromkeys(label_names(transform.tasks), number), weights)
    return Layout(parts, [(spec.dtype.as_numpy_dtype, spec.shape) for spec in tf.nest.flatten(parts)])


class Encoder:
    """From a table to the flattened arrays of a batch; counts what was in no vocabulary."""

    def __init__(self, transform: FeatureTransform, labels: bool, constants: dict[str, str]):
        self._transform, self._labels, self._constants = transform, labels, constants
        self._fitted = transform._require_fitted()
        self._lock = threading.Lock()
        self._rows = 0
        self._unseen: dict[str, tuple[int, tuple]] = {}
        self._fitted.warm_up()

    def __call__(self, table: pa.Table) -> list[np.ndarray]:
        import tensorflow as tf

        frame = read_table(table).assign(**self._constants)
        inputs, unseen = self._fitted.encode(frame)
        with self._lock:
            self._rows += len(frame)
            for name, new in unseen.items():
                count, values = self._unseen.get(name, (0, new.values))
                self._unseen[name] = (count + new.count, values)
        if not self._labels:
            return tf.nest.flatten(as_parts(inputs))
        tasks, weight, absent = self._transform.tasks, self._transform.sample_weight, self._transform.absent
        labels = _several.read_labels(frame, tasks, absent, whole=False)
        weights = _several.read_weights(frame, tasks, weight, absent, whole=False)
        return tf.nest.flatten(as_parts(inputs, labels, weights))

    def log_unseen(self) -> None:
        found = {name: Unseen(n, n / self._rows, values) for name, (n, values) in self._unseen.items()}
        _report.log_unseen(found, f"In {self._rows} rows: ")


def columns_of(transform: FeatureTransform, labels: bool) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The kinds that each column's text may stand for, and the string columns to read by dictionary."""
    fitted = transform._require_fitted()
    columns: dict[str, tuple[str, ...]] = {}
    by_dictionary = []
    for name, readers in fitted.readers().items():
        kind = fitted.columns[name].kind
        usual = (kind, FLOAT) if kind == INTEGER else (kind,)
        wanted = {feature.text_kinds(kind) or usual for feature in readers}
        columns[name] = wanted.pop() if len(wanted) == 1 else usual
        if all(feature.reads_distinct for feature in readers):
            by_dictionary.append(name)
    if labels:
        for name in _labels.label_columns(transform.tasks):
            columns[name] = (FLOAT, BOOLEAN)
        for task in transform.tasks:
            if task.reads_text:
                columns[task.label_column] = (STRING,)
        columns |= dict.fromkeys(_labels.weight_columns(transform.tasks, transform.sample_weight), (FLOAT,))
    return columns, by_dictionary
