"""Keras' training step on JAX, with gradients of embedding tables by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from mtl_zoo import _backend, _keras_private, _reads


class _Read(NamedTuple):
    """Rows that a batch reads of a table: the table's place among the trainable weights, their shape and type."""

    place: int
    shape: tuple[int, ...]
    dtype: Any


def train_step(model: Any, state: Any, data: Any) -> tuple[Any, Any]:
    """One step of Keras' trainer on JAX, which touches the rows of the batch only where the optimizer can.

    JAX's gradient of a table is as large as the table, and so is what an optimizer does with it. Here a zero is added
    to each row that the model reads, and the loss is differentiated by these zeros in place of the table.

    Args:
        model: A compiled model.
        state: As Keras has it: values of trainable weights, of other weights, the optimizer's and the metrics'.
        data: A batch, `(x, y, sample_weight)`.

    Returns:
        The logs, and the state after the step.
    """
    import jax

    trainable, others, slots, metrics = state
    batch = keras.utils.unpack_x_y_sample_weight(data)

    def loss_of(values: list[Any]) -> Any:
        return model.compute_loss_and_updates(values, others, metrics, *batch, training=True, optimizer_variables=slots)

    tables = {i: v for i, v in enumerate(model.trainable_variables) if _backend.is_table(v)}
    reads = _reads_of(loss_of, trainable, tables)
    by_row = {read.place: tables[read.place] for read in reads}

    def loss_at(dense: list[Any], zeros: list[Any]) -> Any:
        ids: list[Any] = []

        def moved(read: _reads.Read, place: int) -> Any:
            ids.append(read.ids)
            return jax.lax.stop_gradient(read.rows) + zeros[len(ids) - 1]

        values = [
            table if i in by_row else value for i, (table, value) in enumerate(zip(trainable, dense, strict=True))
        ]
        with _reads.change_reads(_where(by_row, moved)):
            loss, rest = loss_of(values)
        return loss, (rest, ids)

    dense = [None if i in by_row else value for i, value in enumerate(trainable)]
    zeros = [jax.numpy.zeros(read.shape, read.dtype) for read in reads]
    (_, (rest, ids)), (gradients, rows) = jax.value_and_grad(loss_at, (0, 1), has_aux=True)(dense, zeros)
    for place, table in by_row.items():
        own = [i for i, read in enumerate(reads) if read.place == place]
        values = jax.numpy.concatenate([rows[i].reshape(-1, table.shape[1]) for i in own])
        at = jax.numpy.concatenate([ids[i].reshape(-1) for i in own])
        gradients[place] = _reads.RowGradient(values, at, tuple(table.shape))
    loss, logits, others, metrics = rest
    trainable, slots = model.optimizer.stateless_apply(slots, gradients, trainable)
    logs, metrics = _keras_private.updated_metrics(model, metrics, loss, batch, logits)
    return logs, (trainable, others, slots, metrics)


def _reads_of(loss_of: Callable[[list[Any]], Any], trainable: list[Any], tables: Mapping[int, Any]) -> list[_Read]:
    """What is read of tables by row, in the order in which it is, save of those that are used in another way as well.

    Shapes alone are computed.
    """
    import jax

    reads: list[_Read] = []
    used: set[int] = set()

    def note(read: _reads.Read, place: int) -> Any:
        reads.append(_Read(place, read.rows.shape, read.rows.dtype))
        return jax.lax.stop_gradient(read.rows)

    def loss_at(values: dict[int, Any]) -> Any:
        watched = {i: _watched(value, used, i) for i, value in values.items()}
        with _reads.change_reads(_where(tables, note)):
            return loss_of([watched.get(i, value) for i, value in enumerate(trainable)])[0]

    if tables:
        jax.eval_shape(jax.grad(loss_at), {i: trainable[i] for i in tables})
    return [read for read in reads if read.place not in used]


def _where(tables: Mapping[int, Any], change: Callable[[_reads.Read, int], Any]) -> Callable[[_reads.Read], Any]:
    """`change` for reads of these tables, which also takes the table's place; other reads stay as they are."""
    places = {id(table): place for place, table in tables.items()}

    def changed(read: _reads.Read) -> Any:
        place = places.get(id(read.variable))
        return read.rows if place is None else change(read, place)

    return changed


def _watched(value: Any, used: set[int], place: int) -> Any:
    """The value itself; where a gradient by it is asked for, `place` is entered into `used`."""
    import jax

    @jax.custom_vjp
    def same(x: Any) -> Any:
        return x

    def backward(_: Any, gradient: Any) -> Any:
        used.add(place)
        return (gradient,)

    same.defvjp(lambda x: (x, None), backward)
    return same(value)
