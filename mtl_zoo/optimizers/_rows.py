"""What the row-wise optimizers share: sums over duplicate ids, clipping, and reads and writes of single rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend, _keras_private, _pages
from mtl_zoo._reads import RowGradient
from mtl_zoo._types import Tensor

_WHOLE_TABLE = {
    "weight_decay": "it would decay the rows of the batch only, frequent ids more than rare ones. Penalise the vectors "
    "looked up instead, or decay the other weights: SplitOptimizer(dense=keras.optimizers.AdamW(...))",
    "use_ema": "an average of every row would be updated at every step",
    "gradient_accumulation_steps": "the accumulated gradient of a table is as large as the table",
    "loss_scale_factor": "Keras cannot scale a sparse gradient by it. Wrap the optimizer in SparseLossScaleOptimizer",
}


def is_sparse(gradient: Tensor) -> bool:
    if not _backend.is_tensorflow():
        return isinstance(gradient, RowGradient)
    import tensorflow as tf

    return isinstance(gradient, tf.IndexedSlices)


def sum_duplicates(gradient: Tensor) -> Tensor:
    """The sparse gradient with each id once and the rows of duplicates summed."""
    if isinstance(gradient, RowGradient):
        return _sum_sorted(gradient)
    import tensorflow as tf

    ids, position = tf.unique(gradient.indices)
    rows = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(ids))
    return tf.IndexedSlices(rows, ids, gradient.dense_shape)


def _sum_sorted(gradient: RowGradient) -> RowGradient:
    """As many rows as before, since JAX must know how many: where an id stood again is now no row."""
    ids = gradient.indices
    if not ids.shape[0]:
        return gradient
    # An order of ids alone: XLA takes ten times as long for one that brings their places along.
    ordered = ops.sort(ids)
    first = ops.searchsorted(ordered, ids)
    rows = ops.segment_sum(gradient.values, first, num_segments=ids.shape[0])
    is_first = ops.concatenate([ordered[:1] >= 0, ordered[1:] != ordered[:-1]])
    return gradient._replace(values=rows, indices=ops.where(is_first, ordered, gradient.dense_shape[0]))


class Rows:
    """Some rows of a variable, with each id once: of a `tf.Variable`, or on JAX of Keras' own."""

    def __init__(self, variable: Any, ids: Tensor) -> None:
        self._variable = variable
        self.ids = ids

    def read(self) -> Tensor:
        if not _backend.is_tensorflow():
            return self._variable.value.at[self.ids].get(mode="clip")
        import tensorflow as tf

        return tf.gather(self._variable, self.ids)

    def write(self, values: Tensor) -> None:
        if not _backend.is_tensorflow():
            self._variable.assign(self._variable.value.at[self.ids].set(values, mode="drop"))
            return
        import tensorflow as tf

        self._variable.scatter_update(tf.IndexedSlices(values, self.ids))

    # Reading, adding and writing is exact, since each id occurs once; TensorFlow's own scatter_add runs on one thread.

    def add(self, values: Tensor) -> None:
        self.write(self.read() + values)

    def subtract(self, values: Tensor) -> None:
        self.write(self.read() - values)


class TableRows(Rows):
    """Some rows of a table, and the same rows of its slots."""

    def __init__(self, table: Any, ids: Tensor, optimizer: Any) -> None:
        super().__init__(_held(table), ids)
        self._optimizer = optimizer
        self._index = optimizer.variable_index(table)

    def slot(self, kind: str) -> Rows:
        slot = _held(_keras_private.slots(self._optimizer, kind)[self._index])
        # For a mirrored table, Keras passes the copy on this device, but all copies of the slot.
        return Rows(_backend.local_part(slot) if _backend.is_tensorflow() else slot, self.ids)


def _held(variable: Any) -> Any:
    """What rows are read of and written to. Within a step on JAX, Keras' variable stands for its value there."""
    return variable.value if _backend.is_tensorflow() and isinstance(variable, keras.Variable) else variable


class RowUpdates(_keras_private.GradientHooks):
    """Mixin that makes a Keras optimizer update only the rows of a sparse gradient.

    A subclass defines `update_rows(table, gradient, learning_rate)`, where `table.slot(kind)` are the rows of a slot
    and `gradient` is the gradient of the rows. Dense gradients are left to the Keras optimizer that it is mixed into.
    """

    def __init__(self, learning_rate: Any, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        for name, reason in _WHOLE_TABLE.items():
            value = getattr(self, name)
            if value is not None and value is not False:
                raise ValueError(
                    f"`{name}` must not be given to {type(self).__name__}, which touches only the rows of a batch: "
                    f"{reason}. Received: {name}={value!r}"
                )

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        if isinstance(initializer, keras.initializers.Constant):
            # Keras' own initializer multiplies a matrix of ones, so that a slot would be in memory twice.
            initializer = functools.partial(ops.full, fill_value=initializer.value)
        slot = super().add_variable_from_reference(reference_variable, name=name, initializer=initializer)
        _pages.use_huge_pages(slot, is_zeros=initializer == "zeros")
        return slot

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define `update_rows(table, gradient, learning_rate)`.")

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        if not is_sparse(gradient):
            super().update_step(gradient, variable, learning_rate)
            return
        table = TableRows(variable, gradient.indices, self)
        self.update_rows(table, ops.cast(gradient.values, variable.dtype), ops.cast(learning_rate, variable.dtype))

    def own_gradients(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        # Between workers each row is sent once; the devices of one process share its memory.
        return self.prepare_gradients(gradients) if _backend.has_workers() else gradients

    def prepare_gradients(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        return [sum_duplicates(g) if is_sparse(g) else g for g in gradients]

    def clip_gradients(self, gradients: Sequence[Tensor], clip: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
        """Clips as the dense gradient would be clipped: the rows that are left out are zero and change no norm."""
        clipped = clip([g.values if is_sparse(g) else g for g in gradients])
        return [_with_rows(g, rows) if is_sparse(g) else rows for g, rows in zip(gradients, clipped, strict=True)]


def _with_rows(gradient: Tensor, rows: Tensor) -> Tensor:
    if isinstance(gradient, RowGradient):
        return gradient._replace(values=rows)
    import tensorflow as tf

    return tf.IndexedSlices(rows, gradient.indices, gradient.dense_shape)
