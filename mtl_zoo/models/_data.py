"""From what a user passes to `fit`, `evaluate` and `predict` to what Keras takes: tables encoded, arrays checked."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.features.batching import batches_of_epochs
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models._watchdog import NonFiniteLossWatchdog
from mtl_zoo.tasks import label_names

logger = logging.getLogger(__name__)

TRAIN_BATCH_SIZE = 1024
PREDICT_BATCH_SIZE = 4096
_TRANSFORM_FOLDER = "transform"


def is_table(x) -> bool:
    return isinstance(x, pd.DataFrame | pa.Table)


def holds_rows(x) -> bool:
    """Whether these are arrays by name or a table, and not batches already."""
    return isinstance(x, Mapping) or is_table(x)


def check_input_names(model, inputs) -> None:
    missing = [feature.name for feature in model.features if feature.name not in inputs]
    if missing:
        raise ValueError(
            f"`inputs` must hold every feature of the model. Missing: {missing}. Received: {sorted(inputs)}"
        )


def labels_by_name(model, y) -> Mapping:
    """Labels as a dict with every name that the tasks need; a bare array is the label of a single task."""
    names = label_names(model.tasks)
    if not isinstance(y, Mapping):
        if len(names) > 1 or y is None or isinstance(y, list | tuple):
            raise ValueError(f"`y` must be a dict of labels by task name. Expected: the names {list(names)}")
        return {names[0]: y}
    missing = [name for name in names if name not in y]
    if missing:
        raise ValueError(
            f"`y` must hold the label of every task, and every sample-space column. Missing: {missing}. "
            f"Received: {sorted(y)}"
        )
    return y


def prepare_fit(model, x, y, arguments, run):
    x, y, arguments = prepare(model, x, y, arguments)
    validation = arguments.get("validation_data")
    if is_table(validation):
        arguments["validation_data"] = encode_table(model, validation)
    elif isinstance(validation, tuple) and is_table(validation[0]):
        raise ValueError("`validation_data` must be a table alone: its labels are columns. Received: a tuple.")
    elif isinstance(validation, tuple) and isinstance(validation[0], Mapping):
        model.scoring.checked("validation_data[0]", validation[0])
    if isinstance(y, Mapping):
        _check_labels(model, y)
    if isinstance(x, Mapping) and _can_batch(arguments):
        return _as_batches(run, x, y, arguments)
    if y is None and "shuffle" not in arguments:
        # A tf.data.Dataset brings its own order; Keras warns of shuffle=True, which is its default.
        arguments["shuffle"] = False
    return x, y, arguments


def _can_batch(arguments) -> bool:
    """Whether batches of ours can stand for Keras' own: it must split, or weigh by class, arrays that it sees whole."""
    left_to_keras = (arguments.get("validation_split"), arguments.get("class_weight"))
    return _backend.is_tensorflow() and not any(left_to_keras)


def _as_batches(run, x, y, arguments):
    """Arrays as batches gathered by a shuffled index vector, which are quicker than Keras' own."""
    arguments = dict(arguments)
    batch_size = arguments.pop("batch_size")
    shuffle, weights = arguments.pop("shuffle", True), arguments.pop("sample_weight", None)
    arguments.setdefault("validation_batch_size", batch_size)
    seed = run.seed if shuffle else None
    batches = batches_of_epochs(x, y, weights, batch_size, seed=seed, epoch=run.epoch, at_end=run.at_end)
    return batches, None, {**arguments, "shuffle": False}


def prepare(model, x, y, arguments):
    if is_table(x):
        if y is not None or arguments.get("sample_weight") is not None:
            raise ValueError("`y` and `sample_weight` must be None with a table: they are columns of it.")
        x, y, weights = encode_table(model, x)
        arguments = {**arguments, "sample_weight": weights}
    elif isinstance(x, Mapping):
        model.scoring.checked("x", x)
    if isinstance(x, Mapping):
        y = labels_by_name(model, y)
        arguments = {**arguments, "batch_size": _batch_size(arguments, TRAIN_BATCH_SIZE)}
        weights = arguments.get("sample_weight")
        if isinstance(weights, Mapping):
            arguments["sample_weight"] = _weights_for_every_label(model, y, weights)
    return x, y, arguments


def _batch_size(arguments, default):
    given = arguments.get("batch_size")
    return default if given is None else check.check_int("batch_size", given)


def require_transform(model) -> FeatureTransform:
    if model.transform is None:
        raise ValueError(
            "`x` may be a table only if the model was made with a fitted FeatureTransform. Pass one in place of "
            "`features`, or a dict of encoded arrays."
        )
    return model.transform


def encode_table(model, table):
    transform = require_transform(model)
    return transform.encode(table), transform.encode_labels(table), transform.encode_weights(table)


def _weights_for_every_label(model, y, weights):
    unknown = [name for name in weights if name not in y]
    if unknown:
        raise ValueError(
            f"`sample_weight` must be by task name. Received unknown: {unknown}. Expected: names among "
            f"{[task.name for task in model.tasks]}"
        )
    # Keras wants weights for exactly the keys of the labels.
    return {name: weights.get(name, np.ones(len(np.asarray(label)), "float32")) for name, label in y.items()}


def _check_labels(model, y) -> None:
    for task in model.tasks:
        values = np.asarray(y[task.name])
        if values.dtype.kind not in "fiub":
            raise ValueError(
                f"`y[{task.name!r}]` must be numbers, with NaN where not observed. Received: dtype {values.dtype}, "
                f"sample {check.sample_values(values.ravel())}"
            )
        values = values.astype("float64").ravel()
        seen = values[~np.isnan(values)]
        if not len(seen):
            raise ValueError(f"`y[{task.name!r}]` must have an observed label. Received: all {len(values)} are NaN")
        if task.kind == "regression":
            wrong, rule = seen[~np.isfinite(seen)], "finite"
        else:
            classes = 2 if task.kind == "binary" else task.units
            wrong, rule = seen[~np.isin(seen, np.arange(classes))], f"in 0..{classes - 1}, or NaN where not observed"
        if len(wrong):
            raise ValueError(
                f"`y[{task.name!r}]` must be {rule}. Received {len(wrong)} other values: {check.sample_values(wrong)}"
            )
        if task.sample_space is not None and not np.any(np.asarray(y[task.sample_space], "float64") == 1):
            raise ValueError(
                f"`y[{task.sample_space!r}]`, the sample space of task {task.name!r}, must be 1 somewhere. "
                "Received: never 1"
            )
    for issue in model.head.label_issues(model.tasks, y):
        logger.warning("%s", issue)


def with_own_callbacks(model, callbacks, run):
    own = [run.callback, NonFiniteLossWatchdog(model.loss_names)]
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for callback in own:
            callbacks.append(callback)
        return callbacks
    if callbacks is None:
        return own
    return [*(callbacks if isinstance(callbacks, list | tuple) else [callbacks]), *own]


def save_transform(transform: FeatureTransform, folder) -> None:
    transform.save(pathlib.Path(folder) / _TRANSFORM_FOLDER)


def load_transform(folder) -> FeatureTransform | None:
    path = pathlib.Path(folder) / _TRANSFORM_FOLDER
    return FeatureTransform.load(path) if path.exists() else None
