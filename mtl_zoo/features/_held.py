"""Rows that are drawn from again and again, pass after pass: of tables in memory, and of streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo.features import _several
from mtl_zoo.features._mixing import rows_of_draws
from mtl_zoo.features.batching import Layout, as_parts
from mtl_zoo.features.transform import FeatureTransform

Packed = Sequence[np.ndarray]


class HeldRows:
    """The rows of a table in memory.

    Args:
        packed: Their arrays, as the layout packs them.
        rows: How many.
    """

    def __init__(self, packed: Packed, rows: int):
        self._packed, self.rows = packed, rows

    @classmethod
    def of(
        cls,
        table: Any,
        transform: FeatureTransform,
        layout: Layout,
        constants: Mapping[str, str],
        unread: Sequence[str],
    ) -> HeldRows:
        import tensorflow as tf

        frame = table.assign(**constants)
        inputs = transform.encode(frame)
        labels = _several.read_labels(frame, transform.tasks, transform.absent, whole=False)
        weights = transform.encode_weights(frame)
        arrays = [np.asarray(array) for array in tf.nest.flatten(as_parts(inputs, labels, weights))]
        packed = [np.array(array) for array in layout.pack(arrays)]
        _unobserve(packed, label_places(layout, unread))
        return cls(packed, len(frame))

    def observed(self, place: tuple[int, int | None]) -> bool:
        """Whether a label at this place is observed in some row."""
        return not np.isnan(_at(self._packed, place)).all()

    def reader(self, epoch: int, count: int, draws: np.ndarray, done: int, seed: int | None) -> _RowReader:
        return _RowReader(self._packed, rows_of_draws(self.rows, count, epoch, draws[done:], seed))


class _RowReader:
    def __init__(self, packed: Packed, order: np.ndarray):
        self._packed, self._order, self._position = packed, order, 0

    def take(self, rows: int) -> Packed:
        at = self._order[self._position : self._position + rows]
        self._position += rows
        return [array.take(at, axis=0) for array in self._packed]

    def close(self) -> None:
        """Nothing is open."""


class HeldStream:
    """The rows of a stream, pass after pass over its files."""

    def __init__(self, stream: Any, layout: Layout, unread: Sequence[str]):
        self._stream, self._unread = stream, label_places(layout, unread)

    def observed(self, place: tuple[int, int | None]) -> bool:
        """Not known before its rows are read."""
        return True

    def reader(self, epoch: int, count: int, draws: np.ndarray, done: int, seed: int | None) -> _StreamReader:
        return _StreamReader(self._stream, self._unread, epoch * count + done, seed)


class _StreamReader:
    """Rows of a stream from a position on, counted over all passes."""

    def __init__(self, stream: Any, unread: Sequence[tuple[int, int | None]], position: int, seed: int | None):
        self._unread = unread
        self._rows = self._endless(stream, seed, position)
        self._rest: Packed | None = None

    @staticmethod
    def _endless(stream: Any, seed: int | None, position: int) -> Iterator[Packed]:
        number, start = divmod(position, stream.rows)
        while True:
            yield from stream.rows_of_pass(seed, number, start)
            number, start = number + 1, 0

    def take(self, rows: int) -> Packed:
        pieces: list[Packed] = []
        while rows or not pieces:
            piece = self._rest if self._rest is not None else next(self._rows)
            size = min(rows, len(piece[0]))
            pieces.append([array[:size] for array in piece])
            self._rest = [array[size:] for array in piece] if size < len(piece[0]) else None
            rows -= size
        found = [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)]
        _unobserve(found, self._unread)
        return found

    def close(self) -> None:
        self._rows.close()  # type: ignore[attr-defined]


# Where labels lie among packed arrays.


def label_places(layout: Layout, tasks: Sequence[str]) -> list[tuple[int, int | None]]:
    """(array, column of it) of the labels of these tasks; no column where a label travels alone."""
    import tensorflow as tf

    numbered = tf.nest.pack_sequence_as(layout.parts, list(range(len(layout.specs))))
    found = []
    for leaf in [numbered[1][task] for task in tasks]:
        number = next(i for i, group in enumerate(layout.groups) if leaf in group)
        group = layout.groups[number]
        found.append((number, group.index(leaf) if len(group) > 1 else None))
    return found


def _at(packed: Packed, place: tuple[int, int | None]) -> np.ndarray:
    number, column = place
    return packed[number] if column is None else packed[number][:, column]


def _unobserve(packed: Packed, places: Sequence[tuple[int, int | None]]) -> None:
    for place in places:
        _at(packed, place)[:] = np.nan


def mixed(readers: Sequence[Any], of_row: np.ndarray) -> list[np.ndarray]:
    """Rows of several readers in the order that `of_row` says, (rows,) numbers of readers."""
    places = [np.flatnonzero(of_row == number) for number in range(len(readers))]
    parts = [reader.take(len(place)) for reader, place in zip(readers, places, strict=True)]
    found = []
    for arrays in zip(*parts, strict=True):
        rows = np.empty((len(of_row), *arrays[0].shape[1:]), arrays[0].dtype)
        for place, array in zip(places, arrays, strict=True):
            rows[place] = array
        found.append(rows)
    return found
