"""Batches from arrays in memory: each is gathered by a slice of one shuffled index vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check


def make_batches(
    inputs: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] | np.ndarray | None = None,
    *,
    batch_size: int = 1024,
    shuffle: bool = False,
    seed: int | None = None,
    drop_remainder: bool = False,
):
    """A `tf.data.Dataset` of `inputs`, `(inputs, labels)` or `(inputs, labels, weights)`, each a dict by name.

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
    import tensorflow as tf

    check.check_int("batch_size", batch_size)
    parts: list[Any] = [dict(inputs)]
    if labels is not None:
        parts.append(dict(labels))
    if weights is not None:
        if labels is None:
            raise ValueError("`weights` need labels. Received: labels=None")
        parts.append(dict(weights) if isinstance(weights, Mapping) else weights)
    arrays = [np.asarray(a) for a in tf.nest.flatten(parts)]
    rows = len(arrays[0]) if arrays else 0
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise ValueError(f"`inputs`, `labels` and `weights` must have the same number of rows. Received: {lengths}")
    if rows == 0:
        raise ValueError("`inputs` must have at least one row. Received: an empty table")

    stop = rows - rows % batch_size if drop_remainder else rows
    starts = range(0, stop, batch_size)
    generator = np.random.default_rng(np.random.randint(2**31) if seed is None else seed)

    def epoch():
        order = generator.permutation(rows) if shuffle else None
        for start in starts:
            rows_of_batch = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
            yield tf.nest.pack_sequence_as(parts, [array[rows_of_batch] for array in arrays])

    batch_rows = batch_size if drop_remainder or rows % batch_size == 0 else None
    signature = [tf.TensorSpec((batch_rows, *array.shape[1:]), tf.as_dtype(array.dtype)) for array in arrays]

    def as_element(*flat):
        element = tf.nest.pack_sequence_as(parts, flat)
        return element[0] if len(parts) == 1 else tuple(element)

    data = tf.data.Dataset.from_generator(
        lambda: (tuple(tf.nest.flatten(batch)) for batch in epoch()), output_signature=tuple(signature)
    )
    data = data.apply(tf.data.experimental.assert_cardinality(len(starts)))
    return data.map(as_element).prefetch(2)
