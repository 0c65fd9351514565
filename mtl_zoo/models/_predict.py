"""Scores of many rows: slices of arrays through the model's compiled scoring, and parts of them by worker."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from mtl_zoo import _backend, _distribute
from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.models import _data

Arrays = dict[str, np.ndarray]

# Rows of a table that are encoded at once: enough to make the cost of a call small, and little memory.
_ENCODED_ROWS = 131_072


def takes(model: Any, x: Any) -> bool:
    """Whether `predict_rows` can stand for Keras' own: arrays or a table, on one device, and not run eagerly."""
    if not (_backend.is_tensorflow() and _data.holds_rows(x)):
        return False
    return not model.run_eagerly and model.distribute_strategy.num_replicas_in_sync == 1


def prepare(model: Any, x: Any, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What Keras' own `predict` is given."""
    if _data.is_stream(x):
        size = _data.batch_size(arguments, _data.PREDICT_BATCH_SIZE)
        x, arguments = _data.checked_stream(model, x).batches(size), {**arguments, "batch_size": None}
    if _data.is_table(x):
        x = _data.require_transform(model).encode(x, verbose=_data.shows(arguments))
    if isinstance(x, Mapping):
        x = model.scoring.checked("x", x)
        arguments = {**arguments, "batch_size": _data.batch_size(arguments, _data.PREDICT_BATCH_SIZE)}
    return x, arguments


def predict_rows(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Any = "auto",
    steps: int | None = None,
    callbacks: Any = None,
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
    score, done = model.scoring.compiled(logits=True), 0
    model.stop_predicting = False
    callbacks.on_predict_begin()
    for step, arrays in enumerate(_batches(model, pieces, batch_size)):
        callbacks.on_predict_batch_begin(step)
        logits, scores = score(arrays)
        start, done = done, done + _count(arrays)
        for name, values in scores.items():
            found[name][start:done] = keras.ops.convert_to_numpy(values)
        callbacks.on_predict_batch_end(step, {"outputs": logits})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    return {name: values[:done] for name, values in found.items()}


def predict_with_bar(model: Any, x: Any, rows: int, batch_size: int, verbose: int) -> dict[str, np.ndarray]:
    """What `predict` gives, with a bar of ours in place of Keras'."""
    with Bar("Scoring rows", rows, verbose) as bar:
        told = [_Advance(bar, batch_size, rows)] if verbose else None
        return model.predict(x, batch_size=batch_size, verbose=0, callbacks=told)


class _Advance(keras.callbacks.Callback):
    """Tells a bar of each batch of `predict`."""

    def __init__(self, bar: Bar, batch_size: int, rows: int) -> None:
        super().__init__()
        self._bar, self._batch_size, self._rows = bar, batch_size, rows

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._bar.reach(min((batch + 1) * self._batch_size, self._rows))


def predict_by_worker(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Any = "auto",
    steps: int | None = None,
    callbacks: Any = None,
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


def _slice_rows(model: Any, x: Any, most: int | None) -> Any:
    """The rows of this worker."""
    if _data.is_table(x):
        mine = _distribute.own_slice(model, len(x) if most is None else min(most, len(x)))
        return x.iloc[mine] if isinstance(x, pd.DataFrame) else x.slice(mine.start, mine.stop - mine.start)
    arrays = {name: array[:most] for name, array in model.scoring.checked("x", x).items()}
    mine = _distribute.own_slice(model, _count(arrays))
    return {name: array[mine] for name, array in arrays.items()}


def _predict_dealt(model: Any, data: Any, steps: int | None) -> tuple[Arrays, np.ndarray]:
    """Scores of this worker's batches, and the number of its batch for each row."""
    found: dict[str, list] = {o.name: [np.empty((0, o.units), "float32")] for o in model.outputs_info}
    order, scoring = [np.empty(0, "int64")], model.scoring
    for number, batch in _distribute.every_nth(model, enumerate(itertools.islice(data, steps))):
        inputs = keras.tree.map_structure(np.asarray, keras.utils.unpack_x_y_sample_weight(batch)[0])
        scores = scoring.compiled()(scoring.typed("x", scoring.checked("x", inputs)))
        for name, values in scores.items():
            found[name].append(keras.ops.convert_to_numpy(values))
        order.append(np.full(len(values), number))
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(order)


def _pieces(model: Any, x: Any, batch_size: int, most: int | None) -> tuple[int, Iterable[Arrays]]:
    """How many rows (`most` at most), and their arrays: of a dict as they lie, of a table encoded piece by piece."""
    if not _data.is_table(x):
        arrays = {name: array[:most] for name, array in model.scoring.checked("x", x).items()}
        return _count(arrays), [arrays]
    transform = _data.require_transform(model)
    table = x.iloc[:most] if isinstance(x, pd.DataFrame) else x.slice(0, most)
    size = max(1, _ENCODED_ROWS // batch_size) * batch_size
    return len(table), (model.scoring.shaped("x", piece) for piece in transform.encode_in_pieces(table, size))


def _batches(model: Any, pieces: Iterable[Arrays], batch_size: int) -> Iterator[Arrays]:
    """A piece is a whole number of batches, so only the last batch may be short."""
    for arrays in pieces:
        for start in range(0, _count(arrays), batch_size):
            rows = {name: array[start : start + batch_size] for name, array in arrays.items()}
            yield model.scoring.typed("x", rows)


def _count(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
