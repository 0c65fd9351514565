"""Scores of many rows: slices of arrays through one function that is traced once for any number of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _backend, _distribute
from mtl_zoo import _validation as check
from mtl_zoo.models import _data

# Rows of a table that are encoded at once: enough to make the cost of a call small, and little memory.
_ENCODED_ROWS = 131_072


def takes(model: Any, x: Any) -> bool:
    """Whether `predict_rows` can stand for Keras' own: arrays or a table, on one device, and not run eagerly."""
    if not (_backend.is_tensorflow() and _data.holds_rows(x)):
        return False
    return not model.run_eagerly and model.distribute_strategy.num_replicas_in_sync == 1


def row_function(model: Any) -> Any:
    """From a list of arrays, in the order of the features, to (logits, scores), two dicts by output."""
    if model._row_function is None:
        names = [feature.name for feature in model.features]

        def run(tensors):
            logits = model.predict_step((dict(zip(names, tensors, strict=True)),))
            return logits, scores_of(model, logits)

        model._row_function = _backend.compile_rows(run, [model.input[name] for name in names])
    return model._row_function


def scores_of(model: Any, logits: Mapping[str, Any]) -> dict[str, Any]:
    """float32 scores by output; logits that only losses read are left out."""
    return {o.name: keras.ops.cast(o.scores(logits[o.name]), "float32") for o in model.outputs_info}


def predict_rows(
    model: Any, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None, callbacks=None
) -> dict[str, np.ndarray]:
    """What Keras' `predict` does, with Keras' callbacks, for a dict of arrays or a table."""
    batch_size = _data.PREDICT_BATCH_SIZE if batch_size is None else check.check_int("batch_size", batch_size)
    most = None if steps is None else check.check_int("steps", steps) * batch_size
    rows, pieces = _pieces(model, x, batch_size, most)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_progbar=verbose != 0, verbose=verbose, epochs=1, steps=-(-rows // batch_size), model=model
        )
    found = {o.name: np.empty((rows, o.units), "float32") for o in model.outputs_info}
    score, done = row_function(model), 0
    model.stop_predicting = False
    callbacks.on_predict_begin()
    for step, arrays in enumerate(_batches(model, pieces, batch_size)):
        callbacks.on_predict_batch_begin(step)
        logits, scores = score(arrays)
        start, done = done, done + len(arrays[0])
        for name, values in scores.items():
            found[name][start:done] = keras.ops.convert_to_numpy(values)
        callbacks.on_predict_batch_end(step, {"outputs": logits})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    return {name: values[:done] for name, values in found.items()}


def predict_by_worker(
    model: Any, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None, callbacks=None
) -> dict[str, np.ndarray]:
    """`predict` on several workers, which all give the same `x`: each scores its part, and has the whole at the end."""
    if _data.holds_rows(x):
        batch_size = _data.PREDICT_BATCH_SIZE if batch_size is None else check.check_int("batch_size", batch_size)
        most = None if steps is None else check.check_int("steps", steps) * batch_size
        part = _slice_rows(model, x, most)
        found = predict_rows(model, part, batch_size, verbose, callbacks=callbacks)
        order = None
    else:
        found, order = _predict_dealt(model, x, steps)
    sizes = [output.units for output in model.outputs_info]
    rows = np.concatenate([found[output.name] for output in model.outputs_info], axis=1)
    rows = _distribute.gather_rows(model, rows)
    if order is not None:
        rows = rows[np.argsort(_distribute.gather_rows(model, order), kind="stable")]
    columns = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {output.name: column for output, column in zip(model.outputs_info, columns, strict=True)}


def _slice_rows(model, x, most):
    """The rows of this worker."""
    if _data.is_table(x):
        mine = _distribute.own_slice(model, len(x) if most is None else min(most, len(x)))
        return x.iloc[mine] if isinstance(x, pd.DataFrame) else x.slice(mine.start, mine.stop - mine.start)
    arrays = [array[:most] for array in input_arrays(model, x)]
    mine = _distribute.own_slice(model, len(arrays[0]))
    return {f.name: array[mine] for f, array in zip(model.features, arrays, strict=True)}


def _predict_dealt(model, data, steps):
    """Scores of this worker's batches, and the number of its batch for each row."""
    found: dict[str, list] = {o.name: [np.empty((0, o.units), "float32")] for o in model.outputs_info}
    order = [np.empty(0, "int64")]
    for number, batch in _distribute.every_nth(model, enumerate(itertools.islice(data, steps))):
        inputs = keras.tree.map_structure(np.asarray, keras.utils.unpack_x_y_sample_weight(batch)[0])
        _, scores = row_function(model)(_typed(model, input_arrays(model, inputs)))
        for name, values in scores.items():
            found[name].append(keras.ops.convert_to_numpy(values))
        order.append(np.full(len(values), number))
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(order)


def _pieces(model: Any, x: Any, batch_size: int, most: int | None) -> tuple[int, Iterable[list[np.ndarray]]]:
    """How many rows (`most` at most), and their arrays: of a dict as they lie, of a table encoded piece by piece."""
    if not _data.is_table(x):
        arrays = [array[:most] for array in input_arrays(model, x)]
        return len(arrays[0]), [arrays]
    transform = _data.require_transform(model)
    table = x.iloc[:most] if isinstance(x, pd.DataFrame) else x.slice(0, most)
    size = max(1, _ENCODED_ROWS // batch_size) * batch_size
    return len(table), (input_arrays(model, piece) for piece in transform.encode_in_pieces(table, size))


def _batches(model: Any, pieces: Iterable[list[np.ndarray]], batch_size: int) -> Iterator[list[np.ndarray]]:
    """A piece is a whole number of batches, so only the last batch may be short."""
    for arrays in pieces:
        for start in range(0, len(arrays[0]), batch_size):
            yield _typed(model, [array[start : start + batch_size] for array in arrays])


def _typed(model: Any, arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The arrays of the features, in the types that the model reads."""
    types = [(f"x[{feature.name!r}]", model.input[feature.name].dtype) for feature in model.features]
    return [as_dtype(column, array, dtype) for (column, dtype), array in zip(types, arrays, strict=True)]


def input_arrays(model: Any, x: Mapping[str, Any]) -> list[np.ndarray]:
    """The arrays of the model's features, in their order, of one length and of the shapes that it reads."""
    _data.check_input_names(model, x)
    arrays = {f.name: shaped(f"x[{f.name!r}]", x[f.name], model.input[f.name].shape) for f in model.features}
    count_rows("x", arrays)
    return list(arrays.values())


def count_rows(argument: str, arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"`{argument}` must hold arrays of one length. Received: {lengths}")
    return next(iter(lengths.values()))


def shaped(argument: str, values: Any, wanted: tuple[int | None, ...]) -> np.ndarray:
    """An array of the shape of a model's input."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    # As Keras does: a column may come as (rows, 1), and a width of 1 may be left out.
    if array.ndim == len(wanted) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == len(wanted) - 1 and wanted[-1] == 1:
        array = array[..., None]
    fits = array.ndim == len(wanted) and all(w in (None, s) for s, w in zip(array.shape, wanted, strict=True))
    if not fits:
        shape = ", ".join(["rows", *("any" if size is None else str(size) for size in wanted[1:])])
        raise ValueError(f"`{argument}` must have the shape ({shape}). Received: shape {np.shape(values)}")
    return array


def as_dtype(argument: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """An array in the type of a model's input. What 32 bits cannot hold becomes the nearest number that they can."""
    if array.dtype == dtype or dtype == "string":
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{argument}` must be numbers, of a type that becomes {dtype}. Received: dtype {array.dtype}, sample "
            f"{check.sample_values(array.ravel()[:1000].tolist())}"
        )
    target = np.dtype(dtype)
    if target.kind == "i" and (array.dtype.kind in "uf" or array.dtype.itemsize > target.itemsize):
        # A wider number would wrap round to the id of something else.
        limits = np.iinfo(target)
        if array.dtype.kind == "f":
            array = np.nan_to_num(array.astype("float64"), nan=limits.min)
        array = np.minimum(array, limits.max)
        array = array if array.dtype.kind == "u" else np.maximum(array, limits.min)
    return array.astype(target)
