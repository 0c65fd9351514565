from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Tensor
from mtl_zoo.optimizers._rows import RowUpdates, TableRows


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LazyAdagrad(RowUpdates, keras.optimizers.Adagrad):
    """Adagrad that, for an embedding table, reads and writes only the rows of the batch.

    For each touched row, with its summed gradient `g`:

        a <- a + g^2
        w <- w - learning_rate g / sqrt(a + epsilon)

    A row without a gradient does not move under Adagrad, so the result is always that of Keras' Adagrad.
    `RowWiseAdagrad` keeps one accumulator per row instead.

    Args:
        learning_rate: A number, or a Keras schedule. Default: 0.001.
        initial_accumulator_value: Where `a` starts. Default: 0.1.
        epsilon: Keeps the division finite. Default: 1e-7.
        options: The options of `LazyAdam`.

    Raises:
        ValueError: In the cases of `LazyAdam`.

    Reference: Duchi, Hazan and Singer, JMLR 12 (2011), pages 2121-2159.

    Example:

    >>> import keras, tensorflow as tf
    >>> from mtl_zoo.optimizers import LazyAdagrad
    >>> table = keras.Variable([[1.0], [1.0], [1.0]])
    >>> twice_row_2 = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([2, 2]), tf.constant([3, 1]))
    >>> LazyAdagrad(0.5, initial_accumulator_value=9.0).apply([twice_row_2], [table])
    >>> print(table.numpy().ravel())
    [1.  1.  0.6]
    """

    def __init__(
        self, learning_rate: Any = 0.001, initial_accumulator_value: float = 0.1, epsilon: float = 1e-7, **options: Any
    ) -> None:
        super().__init__(learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon, **options)

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        accumulator = table.slot("accumulators")
        a = accumulator.read() + ops.square(gradient)
        accumulator.write(a)
        table.subtract(learning_rate * gradient / ops.sqrt(a + self.epsilon))
