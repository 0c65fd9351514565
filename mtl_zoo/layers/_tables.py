"""Embedding tables as weights: split by row, with initial rows that are drawn in chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _backend, _pages
from mtl_zoo._types import Shape, Tensor

# Chunks of another size would draw other numbers from the same seed.
CHUNK_BYTES = 4 * 2**20

_SAME_FOR_EVERY_ROW = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
_INDEPENDENT_ROWS = (
    keras.initializers.RandomUniform,
    keras.initializers.RandomNormal,
    keras.initializers.TruncatedNormal,
)
_SCALED_BY_SHAPE = (
    keras.initializers.VarianceScaling,
    keras.initializers.GlorotUniform,
    keras.initializers.GlorotNormal,
    keras.initializers.HeUniform,
    keras.initializers.HeNormal,
    keras.initializers.LecunUniform,
    keras.initializers.LecunNormal,
)


def shard_bounds(num_rows: int, shards: int) -> list[tuple[int, int]]:
    """The (first row, row after the last) of each of `shards` nearly equal parts of a table, none of them empty."""
    shards = min(shards, num_rows)
    edges = [num_rows * i // shards for i in range(shards + 1)]
    return list(itertools.pairwise(edges))


class InitialRows:
    """The initial rows of a table, which can be asked for in ranges, so that only a chunk is in memory at a time.

    The numbers follow from the initializer's seed and the table's index and shape, however the table is split. Rows are
    distributed as the initializer draws them for the whole shape. An initializer that is not one of Keras' with
    independent numbers, or that draws a new seed at each call, is asked for the whole table at once.

    Args:
        initializer: A Keras initializer.
        shape: (rows, width) of the whole table.
        index: The table's position among those of its layer, so that these start different.
        given: Pairs of (first row, matrix), whose rows replace the drawn ones.
    """

    def __init__(
        self, initializer: Any, shape: tuple[int, int], index: int = 0, given: Iterable[tuple[int, Any]] = ()
    ) -> None:
        self.shape = shape
        self._initializer, self._index, self._given = initializer, index, tuple(given)
        self._chunk_rows = max(1, CHUNK_BYTES // (4 * shape[1])) if _draws_in_chunks(initializer) else shape[0]

    def chunks(self, start: int, stop: int, dtype: str) -> Iterator[tuple[int, Any]]:
        """Yields (position in `start` .. `stop`, rows) for each chunk that overlaps the range."""
        for chunk in range(start // self._chunk_rows, -(-stop // self._chunk_rows)):
            first = chunk * self._chunk_rows
            begin, end = max(start, first), min(stop, first + self._chunk_rows)
            rows = self._draw(chunk, dtype)
            yield begin - start, rows if end - begin == len(rows) else rows[begin - first : end - first]

    def is_one_chunk(self, start: int, stop: int) -> bool:
        return start // self._chunk_rows == (stop - 1) // self._chunk_rows

    def _draw(self, chunk: int, dtype: str) -> Tensor:
        first = chunk * self._chunk_rows
        shape = (min(self._chunk_rows, self.shape[0] - first), self.shape[1])
        rows = _of_chunk(self._initializer, self.shape, shape, (self._index, chunk))(shape, dtype=dtype)
        given = [(at - first, matrix) for at, matrix in self._given if first - len(matrix) < at < first + shape[0]]
        if not given:
            return rows
        rows = np.array(ops.convert_to_numpy(rows))
        for at, matrix in given:
            begin, end = max(at, 0), min(at + len(matrix), shape[0])
            rows[begin:end] = matrix[begin - at : end - at]
        return ops.convert_to_tensor(rows, dtype=dtype)


def add_table(add_weight: Callable, rows: InitialRows, start: int, stop: int, **options: Any) -> Any:
    """Adds a weight with the rows `start` .. `stop` of a table, marked as a table. A part ends in a row of zeros.

    Where the backend can write into a variable, it starts as zeros and is filled chunk by chunk, since in one piece it
    would be in memory two or three times.
    """
    spare = int(stop - start < rows.shape[0])
    write_later = _backend.can_write_rows() and not rows.is_one_chunk(start, stop)
    is_zeros = False

    def initial(shape: Shape, dtype: Any = None) -> Tensor:
        nonlocal is_zeros
        is_zeros = write_later
        if is_zeros:
            return ops.zeros(shape, dtype)
        end = [(stop - start, ops.zeros((1, shape[1]), dtype))] * spare
        return _backend.join_rows(shape, dtype, itertools.chain(rows.chunks(start, stop, dtype), end))

    # Vectors are cast after the lookup, since mixed precision would otherwise convert the whole table.
    table = add_weight(shape=(stop - start + spare, rows.shape[1]), initializer=initial, autocast=False, **options)
    # Keras may postpone the initializer until all layers are built; then nothing is written here.
    write_later = False
    if is_zeros:
        _pages.use_huge_pages(table, is_zeros=True)
        for at, values in rows.chunks(start, stop, table.dtype):
            _backend.write_rows(table, at, values)
    return _backend.mark_table(table)


def add_int8_table(add_weight: Callable, rows: int, dim: int, name: str) -> Any:
    """Adds an int8 weight of `rows` rows, and one with a scale for each, both zeros until `quantize` fills them."""
    options = {"initializer": "zeros", "trainable": False, "autocast": False}
    table = add_weight(shape=(rows, dim), dtype="int8", name=name, **options)
    scales = add_weight(shape=(rows,), dtype="float32", name=f"{name}_scales", **options)
    return _backend.mark_table(_backend.scale_rows(table, scales))


def as_int8(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8 and their float32 scales, `s_i = max_j |x_ij| / 127` and `q_ij = round(x_ij / s_i)`.

    `s_i q_ij` differs from `x_ij` by at most `s_i / 2`. A row of zeros has the scale 0.
    """
    scales = (np.abs(rows).max(axis=1) / 127).astype("float32")
    whole = np.rint(rows / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(whole, -127, 127).astype("int8"), scales


def _draws_in_chunks(initializer: Any) -> bool:
    kind = type(initializer)
    if kind in _SAME_FOR_EVERY_ROW:
        return np.ndim(getattr(initializer, "value", 0)) == 0
    if kind in _SCALED_BY_SHAPE and (initializer.input_axes, initializer.output_axes) != (None, None):
        return False
    return kind in (*_INDEPENDENT_ROWS, *_SCALED_BY_SHAPE) and isinstance(initializer.seed, int)


def _of_chunk(initializer: Any, whole: tuple[int, int], shape: tuple[int, int], position: tuple[int, int]) -> Any:
    """The initializer of one chunk, with its own seed and the scale of the whole table.

    The first chunk of the first table has the initializer's own seed, so that small tables start as in Keras.
    """
    kind = type(initializer)
    if kind in _SAME_FOR_EVERY_ROW or not _draws_in_chunks(initializer):
        return initializer
    seed = initializer.seed
    if position != (0, 0):
        seed = int(np.random.SeedSequence([seed % 2**32, *position]).generate_state(1)[0] >> 1)
    if kind in _INDEPENDENT_ROWS:
        return kind.from_config({**initializer.get_config(), "seed": seed})
    fans = {"fan_in": lambda s: s[0], "fan_out": lambda s: s[1], "fan_avg": lambda s: (s[0] + s[1]) / 2}
    fan = fans[initializer.mode]
    return keras.initializers.VarianceScaling(
        scale=initializer.scale * fan(shape) / fan(whole),
        mode=initializer.mode,
        distribution=initializer.distribution,
        seed=seed,
    )
