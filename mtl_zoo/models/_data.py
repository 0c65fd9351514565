"""From what a user passes to `fit`, `evaluate` and `predict` to what Keras takes: tables encoded, arrays checked."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.features._balanced import BalancedStream
from mtl_zoo.features._joint import JointStream
from mtl_zoo.features.batching import batches_of_epochs
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.features.sources import JointSources
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.models._checks import check_labels, check_weights, weigh_classes
from mtl_zoo.models._watchdog import NonFiniteLossWatchdog
from mtl_zoo.tasks import label_names

TRAIN_BATCH_SIZE = 1024
PREDICT_BATCH_SIZE = 4096
_TRANSFORM_FOLDER = "transform"


def is_table(x: Any) -> bool:
    return isinstance(x, pd.DataFrame | pa.Table)


def is_stream(x: Any) -> bool:
    return isinstance(x, TableStream | JointStream | BalancedStream)


def bound(model: Any, x: Any, whole: bool = True) -> Any:
    """`x`, or the batches of several sources for the model's transform; `whole` if it is to be trained on them."""
    if not isinstance(x, JointSources):
        return x
    for source in x.sources.values() if not whole else ():
        refuse_generated("sources", source.data)
    return x.bound(require_transform(model), [task.name for task in model.labelled_tasks] if whole else ())


def checked_stream(model: Any, stream: TableStream, argument: str = "x") -> TableStream:
    """The stream, whose transform must give each value the id that the model knows it by."""
    if model.transform is not None:
        model.transform.refuse_other_ids(stream.transform, argument)
    return stream


def holds_rows(x: Any) -> bool:
    """Whether these are arrays by name or a table, and not batches already."""
    return isinstance(x, Mapping) or is_table(x)


def check_input_names(model: Any, inputs: Any) -> None:
    missing = [name for name in model.input if name not in inputs]
    if missing:
        raise ValueError(
            f"`inputs` must hold every feature of the model. Missing: {missing}. Received: {sorted(inputs)}"
        )


def labels_by_name(model: Any, y: Any) -> Mapping:
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


def prepare_fit(model: Any, x: Any, y: Any, arguments: dict[str, Any], run: Any) -> tuple[Any, Any, dict[str, Any]]:
    names = x.names if isinstance(x, JointStream) else ()
    if is_table(x):
        _check_training_columns(model, x)
    if arguments.get("validation_split"):
        refuse_generated("x", x)
        refuse_generated("y", y)
    if is_stream(x):
        x, arguments = _stream_batches(checked_stream(model, x), y, arguments, run)
    x, y, arguments = prepare(model, x, y, arguments)
    arguments = _prepare_validation(model, arguments, names)
    if isinstance(y, Mapping):
        check_labels(model, y)
        model.fit_tasks(y)
        if arguments.get("class_weight") is not None:
            weights = weigh_classes(model, y, arguments.get("sample_weight"), arguments.pop("class_weight"))
            arguments["sample_weight"] = _weights_for_every_label(model, y, weights)
    elif arguments.get("class_weight") is not None:
        raise ValueError(
            "`class_weight` must be None unless `x` is arrays or a table. Received: class_weight="
            f"{arguments['class_weight']!r}. Give `positive_weight` to the BinaryTask, or sample weights."
        )
    _warn_of_unfitted(model)
    if isinstance(x, Mapping) and _can_batch(arguments):
        return _as_batches(run, x, y, arguments)
    if y is None and "shuffle" not in arguments:
        # A tf.data.Dataset brings its own order; Keras warns of shuffle=True, which is its default.
        arguments["shuffle"] = False
    return x, y, arguments


def _check_training_columns(model: Any, table: Any) -> None:
    columns = getattr(table, "column_names", getattr(table, "columns", ()))
    missing = [name for name in require_transform(model).training_columns if name not in columns]
    if missing:
        raise ValueError(
            f"`x` must hold the columns of features with bias=True, which training reads. Received without: {missing}"
        )


def _stream_batches(
    stream: TableStream | JointStream | BalancedStream, y: Any, arguments: dict[str, Any], run: Any
) -> tuple[Any, dict[str, Any]]:
    """The stream's batches, in an order of their own for each epoch."""
    if y is not None or arguments.get("sample_weight") is not None:
        raise ValueError("`y` and `sample_weight` must be None with streams and sources: they are columns of them.")
    arguments = dict(arguments)
    size = batch_size(arguments, TRAIN_BATCH_SIZE)
    arguments.pop("batch_size", None)
    shuffle = arguments.pop("shuffle", True)
    arguments.setdefault("validation_batch_size", size)
    if isinstance(stream, JointStream) and not shuffle:
        raise ValueError("`shuffle` must be True with JointSources, whose mixing is an order. Received: shuffle=False")
    run.at_end.callback(stream.release)
    batches = stream.batches(size, shuffle=bool(shuffle), seed=run.seed if shuffle else None, epoch=run.epoch)
    return batches, {**arguments, "shuffle": False}


def _prepare_validation(model: Any, arguments: dict[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """The arguments of `fit` with validation data that Keras takes, checked as those for training are."""
    validation: Any = bound(model, arguments.get("validation_data"), whole=False)
    if isinstance(validation, JointStream):
        validation = validation.numbered(sources or validation.names)
    size = arguments.get("validation_batch_size") or arguments.get("batch_size") or TRAIN_BATCH_SIZE
    if is_table(validation):
        refuse_generated("validation_data", validation)
        return {**arguments, "validation_data": encode_table(model, validation, shows(arguments))}
    if is_stream(validation):
        return {**arguments, "validation_data": checked_stream(model, validation, "validation_data").batches(size)}
    if isinstance(validation, tuple) and is_table(validation[0]):
        raise ValueError("`validation_data` must be a table alone: its labels are columns. Received: a tuple.")
    if isinstance(validation, tuple) and isinstance(validation[0], Mapping):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(validation)
        model.scoring.checked("validation_data[0]", x)
        refuse_generated("validation_data[1]", y)
        y = labels_by_name(model, y)
        check_labels(model, y, "validation_data[1]", whole=False)
        check_weights(weights, _rows_of(y), "validation_data[2]")
        if isinstance(weights, Mapping):
            weights = _weights_for_every_label(model, y, weights)
        return {**arguments, "validation_data": (x, y) if weights is None else (x, y, weights)}
    refuse_generated("validation_data", validation)
    return arguments


def _rows_of(y: Mapping[str, Any]) -> int:
    return len(np.asarray(next(iter(y.values()))))


def _warn_of_unfitted(model: Any) -> None:
    # Tasks of classes that lack what they need have a loss that says so.
    unfitted = [task.name for task in model.tasks if not task.is_fitted and task.num_classes is None]
    if unfitted:
        warnings.warn(
            f"The labels of tasks {unfitted} are used in the unit that they have: their mean and deviation are learned "
            "from arrays, a table or the transform, and not from what is read batch by batch. Make the model with a "
            "fitted FeatureTransform, or give scale=(mean, deviation) or scale=None to the RegressionTask.",
            stacklevel=4,
        )


def _can_batch(arguments: dict[str, Any]) -> bool:
    """Whether batches of ours can stand for Keras' own: it must split arrays that it sees whole."""
    return _backend.is_tensorflow() and not arguments.get("validation_split")


def _as_batches(run: Any, x: Any, y: Any, arguments: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Arrays as batches gathered by a shuffled index vector, which are quicker than Keras' own."""
    arguments = dict(arguments)
    batch_size = arguments.pop("batch_size")
    shuffle, weights = arguments.pop("shuffle", True), arguments.pop("sample_weight", None)
    arguments.setdefault("validation_batch_size", batch_size)
    seed = run.seed if shuffle else None
    batches = batches_of_epochs(x, y, weights, batch_size, seed=seed, epoch=run.epoch, at_end=run.at_end)
    return batches, None, {**arguments, "shuffle": False}


def prepare(model: Any, x: Any, y: Any, arguments: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    if is_stream(x):
        size = batch_size(arguments, TRAIN_BATCH_SIZE)
        x, arguments = checked_stream(model, x).batches(size), {**arguments, "batch_size": None}
    if is_table(x):
        if y is not None or arguments.get("sample_weight") is not None:
            raise ValueError("`y` and `sample_weight` must be None with a table: they are columns of it.")
        x, y, weights = encode_table(model, x, shows(arguments))
        arguments = {**arguments, "sample_weight": weights}
    elif isinstance(x, Mapping):
        model.scoring.checked("x", x)
    if isinstance(x, Mapping):
        y = labels_by_name(model, y)
        arguments = {**arguments, "batch_size": batch_size(arguments, TRAIN_BATCH_SIZE)}
        weights = arguments.get("sample_weight")
        check_weights(weights, _rows_of(y))
        if isinstance(weights, Mapping):
            arguments["sample_weight"] = _weights_for_every_label(model, y, weights)
    return x, y, arguments


def batch_size(arguments: dict[str, Any], default: int) -> int:
    given = arguments.get("batch_size")
    return default if given is None else check.check_int("batch_size", given)


def shows(arguments: Mapping[str, Any]) -> int:
    """1, or 0 where the arguments of `fit`, `evaluate` or `predict` ask for silence."""
    return int(arguments.get("verbose", 1) != 0)


def require_transform(model: Any) -> FeatureTransform:
    if model.transform is None:
        raise ValueError(
            "`x` may be a table only if the model was made with a fitted FeatureTransform. Pass one in place of "
            "`features`, or a dict of encoded arrays."
        )
    return model.transform


def encode_table(model: Any, table: Any, verbose: int = 1) -> tuple[Any, Any, Any]:
    transform = require_transform(model)
    return transform.encode(table, verbose=verbose), transform.encode_labels(table), transform.encode_weights(table)


def _weights_for_every_label(model: Any, y: Any, weights: Any) -> dict[str, Any]:
    unknown = [name for name in weights if name not in y]
    if unknown:
        raise ValueError(
            f"`sample_weight` must be by task name. Received unknown: {unknown}. Expected: names among "
            f"{[task.name for task in model.tasks]}"
        )
    # Keras wants weights for exactly the keys of the labels.
    return {name: weights.get(name, np.ones(len(np.asarray(label)), "float32")) for name, label in y.items()}


def with_own_callbacks(model: Any, callbacks: Any, run: Any) -> Any:
    own = [run.callback, NonFiniteLossWatchdog(model.loss_names)]
    given = getattr(callbacks, "callbacks", callbacks)
    for callback in given if isinstance(given, list | tuple) else [given]:
        set_direction(model, callback)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for callback in own:
            callbacks.append(callback)
        return callbacks
    if callbacks is None:
        return own
    return [*(callbacks if isinstance(callbacks, list | tuple) else [callbacks]), *own]


@contextlib.contextmanager
def telling_failures(callbacks: Any) -> Iterator[None]:
    """Calls `on_train_failed` of the callbacks that have one if training ends by an error or an interrupt.

    Keras calls nothing then, so that a tracker's run would stay open. What a callback raises there becomes a warning:
    the error of the training is the one to raise, and the other callbacks are told too.
    """
    try:
        yield
    except BaseException as error:
        for callback in getattr(callbacks, "callbacks", callbacks):
            if hasattr(callback, "on_train_failed"):
                try:
                    callback.on_train_failed(error)
                except Exception as other:
                    name = type(callback).__name__
                    warnings.warn(f"{name} failed to end its run: {type(other).__name__}: {other}", stacklevel=2)
        raise


def set_direction(model: Any, callback: Any) -> None:
    """Tells a callback of Keras that monitors one of our metrics whether more of it is better."""
    if getattr(callback, "mode", None) != "auto" or not isinstance(getattr(callback, "monitor", None), str):
        return
    name = callback.monitor.removeprefix("val_")
    direction = model._require_compiled().directions().get(name)
    # What `ExactValidation` enters into the logs.
    direction = "max" if direction is None and name.endswith("score") else direction
    if direction is None and not hasattr(callback, "monitor_op"):
        return  # a callback of the user's own, which may know
    if direction is None:
        raise ValueError(
            f"`{type(callback).__name__}` must be told whether more of {callback.monitor!r} is better: give it "
            "mode='max' or mode='min'. Received: mode='auto'"
        )
    callback.mode = direction


def save_transform(transform: FeatureTransform, folder: Any) -> None:
    transform.save(pathlib.Path(folder) / _TRANSFORM_FOLDER)


def load_transform(folder: Any) -> FeatureTransform | None:
    path = pathlib.Path(folder) / _TRANSFORM_FOLDER
    return FeatureTransform.load(path) if path.exists() else None
