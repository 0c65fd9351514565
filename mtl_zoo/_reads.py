"""Rows that are read of embedding tables, and gradients by row."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Read(NamedTuple):
    """Rows that were read of a table; an id behind its end stands for a row that is of no use."""

    variable: Any
    ids: Any
    rows: Any


class RowGradient(NamedTuple):
    """The gradient of some rows of a table on JAX: what `tf.IndexedSlices` is on TensorFlow.

    Args:
        values: Gradients of rows (n, width).
        indices: Which rows (n,). One behind the end of the table is no row.
        dense_shape: The shape of the table.
    """

    values: Any
    indices: Any
    dense_shape: tuple[int, ...]


# Not an argument: rows are read several layers down, and Keras hands tensors alone from layer to layer. The thread's
# own, since replicas are traced by threads of their own.
_reading = threading.local()


def changed(read: Read) -> Any:
    """What stands for the rows of a read, by the `change_reads` around it."""
    change = getattr(_reading, "change", None)
    return read.rows if change is None else change(read)


@contextlib.contextmanager
def change_reads(change: Callable[[Read], Any]) -> Iterator[None]:
    """Within it, what this thread reads of a table in one variable are the rows that `change` gives."""
    before, _reading.change = getattr(_reading, "change", None), change
    try:
        yield
    finally:
        _reading.change = before


@contextlib.contextmanager
def record_reads() -> Iterator[list[Read]]:
    """Collects every `Read` of a table in this thread: gradients of the rows stand for those of the table."""
    reads: list[Read] = []

    def keep(read: Read) -> Any:
        reads.append(read)
        return read.rows

    with change_reads(keep):
        yield reads
