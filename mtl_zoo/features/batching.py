"""Batches from arrays in memory: each is gathered by a slice of one shuffled index vector."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _allocator
from mtl_zoo import _validation as check
from mtl_zoo.features._plain_errors import noted, with_plain_errors

# Rows that go from NumPy to TensorFlow at once: enough to make the cost of that small, and little memory.
_RUN_ROWS = 16_384
# Rows that are laid side by side at once: a block of all columns stays in the cache.
_STACK_ROWS = 4096


def make_batches(
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] | np.ndarray | None = None,
    *,
    batch_size: int = 1024,
    shuffle: bool = False,
    seed: int | None = None,
    drop_remainder: bool = False,
) -> Any:
    """A `tf.data.Dataset` of `inputs`, `(inputs, labels)` or `(inputs, labels, weights)`, each a dict by name.

    Arrays with one value a row are copied side by side into one matrix for each type, from which a batch is gathered
    at once. Memory-mapped arrays are not copied: they are read where they lie.

    Args:
        inputs, labels, weights: Arrays with the same number of rows; `weights` may be one array for all tasks.
        batch_size: Rows a batch.
        shuffle: A new order every epoch, drawn without replacement from `seed`.
        seed: The same seed gives the same orders. None: drawn from NumPy's global generator, which
            `keras.utils.set_random_seed` seeds.
        drop_remainder: Leave out a last batch with fewer rows.

    Raises:
        ValueError: The arrays are empty or differ in length; `batch_size` < 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.features import make_batches
    >>> data = make_batches({"x": np.arange(5)}, {"y": np.zeros(5)}, batch_size=2)
    >>> [len(inputs["x"]) for inputs, labels in data]
    [2, 2, 1]
    """
    batch_size = check.check_int("batch_size", batch_size)
    seed = np.random.randint(2**31) if seed is None else seed
    epochs = itertools.count()
    return batches_of_epochs(
        inputs,
        labels,
        weights,
        batch_size,
        seed=seed if shuffle else None,
        epoch=lambda: next(epochs),
        drop_remainder=drop_remainder,
    )


def batches_of_epochs(
    inputs: Any,
    labels: Any,
    weights: Any,
    batch_size: int,
    *,
    seed: int | None,
    epoch: Callable[[], int],
    drop_remainder: bool = False,
    at_end: contextlib.ExitStack | None = None,
) -> Any:
    """`make_batches` with the orders of the epochs that `epoch()` gives, from 0; `seed` None does not shuffle.

    TensorFlow keeps a generator, and its rows with it, after the dataset has gone. `at_end` (an `ExitStack`) gets what
    lets go of them.
    """
    import tensorflow as tf

    parts = as_parts(inputs, labels, weights)
    arrays = [a if isinstance(a, np.memmap) else np.asarray(a) for a in tf.nest.flatten(parts)]
    rows = len(arrays[0]) if arrays else 0
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise ValueError(f"`inputs`, `labels` and `weights` must have the same number of rows. Received: {lengths}")
    if rows == 0:
        raise ValueError("`inputs` must have at least one row. Received: an empty table")

    layout = Layout(parts, [(array.dtype, array.shape[1:]) for array in arrays], _groups_in_memory(arrays))
    packed = layout.pack(arrays)
    num_batches = rows // batch_size if drop_remainder else -(-rows // batch_size)
    orders = None if seed is None else RowOrders(rows, seed)
    if at_end is not None:
        at_end.callback(packed.clear)

    def one_epoch() -> Iterator[tuple[np.ndarray, ...]]:
        order = None if orders is None else orders(epoch())
        for start, stop in batch_runs(range(num_batches), rows, batch_size):
            at = slice(start, stop) if order is None else order[start:stop]
            held = list(packed)
            if not held:
                return  # `fit` is over, and what is read ahead of its steps is for nobody
            yield tuple(_gather(array, at) for array in held)

    all_full = drop_remainder or rows % batch_size == 0
    return layout.dataset(one_epoch, batch_size, all_full=all_full, num_batches=num_batches)


class RowOrders:
    """Row orders by epoch: permutations that are drawn from a seed, one after the other."""

    def __init__(self, rows: int, seed: int):
        self._rows, self._seed, self._lock = rows, seed, threading.Lock()
        self._rewind()

    def _rewind(self) -> None:
        self._generator, self._epoch = np.random.default_rng(self._seed), -1
        self._order: Any = None

    def __call__(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch < self._epoch:
                self._rewind()
            while self._epoch < epoch:
                self._order = self._generator.permutation(self._rows)
                self._epoch += 1
            return self._order


def batch_runs(batches: range, rows: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """First row and end of runs of whole batches that are handed over at once; a short last batch is its own."""
    size = max(1, _RUN_ROWS // batch_size) * batch_size
    stop = min(batches.stop * batch_size, rows)
    full = stop - stop % batch_size
    for start in range(batches.start * batch_size, full, size):
        yield start, min(start + size, full)
    if full < stop:
        yield full, stop


class Rows:
    """Base of whatever holds rows as `inputs`, `labels` and `weights`: arrays by name, or None."""

    inputs: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray] | None
    weights: Mapping[str, np.ndarray] | np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(
        self, batch_size: int = 1024, shuffle: bool = False, seed: int | None = None, drop_remainder: bool = False
    ) -> Any:
        """A `tf.data.Dataset` of the rows, shuffled over all of them if asked. See `make_batches`."""
        return make_batches(
            self.inputs,
            self.labels,
            self.weights,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
        )


def as_parts(inputs: Any, labels: Any = None, weights: Any = None) -> list[Any]:
    """What a batch holds, as the nest that `Layout` keeps the structure of."""
    parts: list[Any] = [dict(inputs)]
    if labels is not None:
        parts.append(dict(labels))
    if weights is not None:
        if labels is None:
            raise ValueError("`weights` need labels. Received: labels=None")
        parts.append(dict(weights) if isinstance(weights, Mapping) else weights)
    return parts


class Layout:
    """How the arrays of a batch travel: those with one value a row side by side, in one matrix for each type.

    A gather, and the way from NumPy to TensorFlow, then cost one call for each type instead of one for each column.

    Args:
        parts: The nest (inputs, labels, weights) whose flattened leaves the arrays are.
        specs: Type and shape of a row, for each leaf.
        groups: Positions of the leaves that travel together. Default: one group for each type, and one for each array
            that holds more than a number a row.
    """

    def __init__(
        self,
        parts: list[Any],
        specs: Sequence[tuple[np.dtype, tuple[int | None, ...]]],
        groups: Sequence[Sequence[int]] | None = None,
    ):
        self.parts = parts
        self.specs = [(np.dtype(dtype), tuple(shape)) for dtype, shape in specs]
        self.groups = [list(group) for group in (groups if groups is not None else group_by_type(self.specs))]

    def matrix_spec(self, group: Sequence[int]) -> tuple[np.dtype, tuple[int | None, ...]]:
        """Type and shape of a row of what a group travels in."""
        dtype, shape = self.specs[group[0]]
        return dtype, shape if len(group) == 1 else (len(group),)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row; dimensions that are not known count as one."""
        matrices = [self.matrix_spec(group) for group in self.groups]
        return sum(dtype.itemsize * int(np.prod([size or 1 for size in shape])) for dtype, shape in matrices)

    def pack(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """An array for each group: the leaf itself, or a matrix with a column for each leaf."""
        return [_side_by_side([arrays[position] for position in group]) for group in self.groups]

    def unpack(self, packed: Sequence[Any]) -> Any:
        """From tensors for each group to `inputs`, `(inputs, labels)` or `(inputs, labels, weights)`."""
        import tensorflow as tf

        flat: list[Any] = [None] * len(self.specs)
        for group, tensor in zip(self.groups, packed, strict=True):
            columns = [tensor] if len(group) == 1 else tf.unstack(tensor, axis=1)
            for position, column in zip(group, columns, strict=True):
                flat[position] = column
        element = tf.nest.pack_sequence_as(self.parts, flat)
        return element[0] if len(self.parts) == 1 else tuple(element)

    def dataset(self, epoch: Any, batch_size: int, *, all_full: bool, num_batches: int | None) -> Any:
        """The `tf.data.Dataset` of the batches in the packed `batch_runs` that `epoch()` yields.

        The way through Python is paid once a run; TensorFlow cuts the run into batches.
        """
        import tensorflow as tf

        matrices = [self.matrix_spec(group) for group in self.groups]
        signature = tuple(tf.TensorSpec((None, *shape), tf.as_dtype(dtype)) for dtype, shape in matrices)

        def cut(*packed: Any) -> Any:
            rows = batch_size if all_full else tf.minimum(batch_size, tf.shape(packed[0])[0])
            batches = [tf.reshape(array, tf.concat([[-1, rows], tf.shape(array)[1:]], axis=0)) for array in packed]
            return tf.data.Dataset.from_tensor_slices(tuple(batches))

        def columns(*packed: Any) -> Any:
            size = batch_size if all_full else None
            return self.unpack([tf.ensure_shape(array, (size, *array.shape[1:])) for array in packed])

        _allocator.keep_by_default()
        plain = tf.autograph.experimental.do_not_convert
        data = tf.data.Dataset.from_generator(noted(epoch), output_signature=signature).flat_map(plain(cut))
        data = data.map(plain(columns))
        if num_batches is not None:
            data = data.apply(tf.data.experimental.assert_cardinality(num_batches))
        return with_plain_errors(data.prefetch(2).with_options(_fixed_options()))


def _fixed_options() -> Any:
    """Nothing here is left to tune, and at the end of an epoch the tuner may hold training up for a second."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    # Of several workers each takes its rows of every batch. By default a worker would take every n-th run.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def group_by_type(specs: Sequence[tuple[np.dtype, tuple[int | None, ...]]]) -> list[list[int]]:
    """Positions of numbers of one type together, everything else alone."""
    groups: dict[Any, list[int]] = {}
    for position, (dtype, shape) in enumerate(specs):
        groups.setdefault(position if shape or dtype.kind not in "biuf" else dtype, []).append(position)
    return list(groups.values())


def _groups_in_memory(arrays: Sequence[np.ndarray]) -> list[list[int]]:
    """Groups that leave memory-mapped arrays where they lie: columns of one matrix together, others alone."""
    groups = []
    for group in group_by_type([(array.dtype, array.shape[1:]) for array in arrays]):
        mapped = [position for position in group if isinstance(arrays[position], np.memmap)]
        copied = [position for position in group if position not in set(mapped)]
        groups += [copied] if copied else []
        runs: list[list[int]] = []
        for position in sorted(mapped, key=lambda position: _address(arrays[position])):
            if runs and _follows(arrays[position], arrays[runs[-1][-1]]):
                runs[-1].append(position)
            else:
                runs.append([position])
        groups += runs
    return groups


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _follows(array: np.ndarray, other: np.ndarray) -> bool:
    """`array` is the column right of `other` in a matrix."""
    same = array.strides == other.strides and array.strides[0] > array.itemsize
    return same and _address(array) == _address(other) + array.itemsize


def _side_by_side(columns: Sequence[np.ndarray]) -> np.ndarray:
    first = columns[0]
    if len(columns) == 1:
        return first
    if all(_follows(right, left) for left, right in itertools.pairwise(columns)):
        strides = (first.strides[0], first.itemsize)
        return np.lib.stride_tricks.as_strided(first, (len(first), len(columns)), strides, writeable=False)
    matrix = np.empty((len(first), len(columns)), first.dtype)
    # A column at a time would visit the memory of every row once for each column.
    for start in range(0, len(first), _STACK_ROWS):
        at = slice(start, start + _STACK_ROWS)
        matrix[at] = np.stack([column[at] for column in columns]).T
    return matrix


def _gather(array: np.ndarray, at: slice | np.ndarray) -> np.ndarray:
    if isinstance(at, slice):
        # A copy: TensorFlow takes the memory of a NumPy array as it is, and an operation may then write its result into
        # that memory, so that the next epoch would read changed rows.
        return np.array(array[at])
    # `take` is the faster, but it copies an array that has gaps between its rows before it takes from it.
    return array.take(at, axis=0, mode="clip") if array.flags.c_contiguous else array[at]
