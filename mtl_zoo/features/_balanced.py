"""The batches of `BalancedBatches`, from arrays and from streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._held import HeldRows, HeldStream, mixed
from mtl_zoo.features._mixing import seed_of_source
from mtl_zoo.features.balanced import BalancedBatches
from mtl_zoo.features.batching import Layout, as_parts, batch_runs
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.tasks import Task


class BalancedStream:
    """Rows by the kind of their labels, and batches that hold so many of each.

    Args:
        held: The rows of each kind.
        sizes: How many rows of each kind there are.
        layout: How rows travel in batches.
        sampling: The shares, with the rates that follow from the sizes.
        transform: That of the rows, or None.
        known: What the rows are known by.
    """

    def __init__(
        self,
        held: Sequence[Any],
        sizes: Sequence[int],
        layout: Layout,
        sampling: BalancedBatches,
        transform: Any,
        known: Mapping[str, Any],
    ):
        self._held, self.sizes, self._layout = list(held), list(sizes), layout
        self.sampling, self.transform, self._known = sampling, transform, dict(known)
        self.rows = sum(sizes)

    @classmethod
    def of_arrays(
        cls,
        parts: Sequence[Any],
        tasks: Sequence[Task],
        sampling: BalancedBatches,
        batch_size: int,
        transform: Any,
        known: Mapping[str, Any],
    ) -> BalancedStream:
        """From (inputs, labels, weights) in memory.

        Args:
            parts: Arrays by name; the weights may be None, or one array for all tasks.
            tasks: The model's tasks.
            sampling: The shares.
            batch_size: Rows of a batch.
            transform: The model's transform, or None.
            known: What the rows are known by.
        """
        import tensorflow as tf

        steps, nest = sampling.steps(tasks), as_parts(*parts)
        kinds = sampling.kinds(steps, parts[1])
        arrays = [np.asarray(array) for array in tf.nest.flatten(nest)]
        layout = Layout(nest, [(array.dtype, array.shape[1:]) for array in arrays])
        packed = layout.pack(arrays)
        rows = [np.flatnonzero(kinds == kind) for kind in range(len(steps) + 1)]
        sizes = [len(at) for at in rows]
        fitted = sampling.fitted(sizes, batch_size)
        held = [HeldRows([array[at] for array in packed], len(at)) for at in rows]
        return cls(held, sizes, layout, fitted, transform, known)

    @classmethod
    def of_stream(
        cls, stream: TableStream, tasks: Sequence[Task], sampling: BalancedBatches, batch_size: int
    ) -> BalancedStream:
        """From the rows of a stream, whose labels are read once for each kind, to count them."""
        steps = sampling.steps(tasks)

        def of_kind(kind: int) -> TableStream:
            return stream.chosen(steps, lambda table, first: sampling.kinds_of_table(table, steps) == kind)

        streams = [of_kind(kind) for kind in range(len(steps) + 1)]
        sizes = [found.rows for found in streams]
        fitted = sampling.fitted(sizes, batch_size)
        held = [HeldStream(found, stream.layout, ()) for found in streams]
        return cls(held, sizes, stream.layout, fitted, stream.transform, stream.known_by())

    def known_by(self) -> dict[str, Any]:
        """What the data of a run are known by, beside the size of its batches, as plain values."""
        return {**self._known, "sizes": self.sizes, "shares": dict(self.sampling.shares)}

    def release(self) -> None:
        """Lets go of the rows: TensorFlow keeps generators of batches, and what they hold."""
        self._held.clear()

    def batches(
        self,
        batch_size: int = 1024,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        epoch: int | Callable[[], int] = 0,
        start: int = 0,
    ) -> Any:
        """A `tf.data.Dataset` of full batches.

        Args:
            batch_size: Rows a batch, as the rates were found for.
            shuffle: Always True: the balance is an order.
            seed: Of the orders. None: drawn from NumPy's global generator.
            epoch: Number of the first epoch, or a function that gives the number of each when it begins.
            start: Batches of the first epoch to leave out, to go on within it.
        """
        seed = int(np.random.randint(2**31)) if seed is None else seed
        num_batches = -(-self.rows // batch_size)
        first_epoch = 0 if callable(epoch) else check.check_int("epoch", epoch, minimum=0)
        if check.check_int("start", start, minimum=0) >= num_batches:
            raise ValueError(f"`start` must be below the {num_batches} batches of an epoch. Received: start={start}")
        epochs, held, counts = itertools.count(first_epoch), self._held, self.sampling.rows_of_batch(batch_size)

        def one_epoch() -> Iterator[tuple[np.ndarray, ...]]:
            number = epoch() if callable(epoch) else next(epochs)
            begin = start if number == first_epoch else 0
            runs = batch_runs(range(begin, num_batches), num_batches * batch_size, batch_size)
            if held:  # else `fit` is over, and what is read ahead of its steps is for nobody
                yield from _runs(held, counts, num_batches, number, seed, list(runs))

        known = None if start else num_batches
        data = self._layout.dataset(one_epoch, batch_size, all_full=True, num_batches=known)
        if self.transform is not None:
            data.encoded_features = self.transform.features  # a model of these need not look at the rows again
        return data


def _runs(
    held: Sequence[Any], counts: Sequence[int], num_batches: int, epoch: int, seed: int, runs: list[tuple[int, int]]
) -> Iterator[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng((seed, epoch))
    of_batch = np.repeat(np.arange(len(counts)), counts).astype("int8")
    of_row = rng.permuted(np.tile(of_batch, (num_batches, 1)), axis=1).ravel()
    begin = runs[0][0]
    readers = [
        rows.reader(
            epoch,
            count * num_batches,
            rng.permutation(count * num_batches),
            int(np.count_nonzero(of_row[:begin] == kind)),
            seed_of_source(seed, kind),
        )
        for kind, (rows, count) in enumerate(zip(held, counts, strict=True))
    ]
    try:
        for start, stop in runs:
            yield tuple(mixed(readers, of_row[start:stop]))
    finally:
        for reader in readers:
            reader.close()
