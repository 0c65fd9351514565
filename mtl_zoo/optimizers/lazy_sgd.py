from __future__ import annotations

from typing import Any

import keras

from mtl_zoo._types import Tensor
from mtl_zoo.optimizers._rows import RowUpdates, TableRows


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LazySGD(RowUpdates, keras.optimizers.SGD):
    """Gradient descent with momentum that, for an embedding table, reads and writes only the rows of the batch.

    For each touched row, with its summed gradient `g`:

        m <- momentum m - learning_rate g
        w <- w + m                                   (nesterov: w + momentum m - learning_rate g)

    Where every row is touched at every step, or without momentum, this is Keras' SGD. With momentum, a row that a
    batch leaves out does not go on moving.

    Args:
        learning_rate: A number, or a Keras schedule. Default: 0.01.
        momentum: Share of the last move that is repeated. Default: 0.0.
        nesterov: Whether to look ahead by the momentum. Default: False.
        options: The options of `LazyAdam`.

    Raises:
        ValueError: In the cases of `LazyAdam`, or if `momentum` is not a float in [0, 1].

    Reference: Sutskever et al., ICML 2013, PMLR 28(3):1139-1147.

    Example:

    >>> import keras, tensorflow as tf
    >>> from mtl_zoo.optimizers import LazySGD
    >>> table = keras.Variable([[1.0], [1.0], [1.0]])
    >>> twice_row_2 = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([2, 2]), tf.constant([3, 1]))
    >>> LazySGD(0.1, momentum=0.9).apply([twice_row_2], [table])
    >>> print(table.numpy().ravel())
    [1.  1.  0.6]
    """

    def __init__(
        self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **options)

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        if self.momentum == 0:
            table.subtract(learning_rate * gradient)
            return
        moved = table.slot("momentums")
        m = self.momentum * moved.read() - learning_rate * gradient
        moved.write(m)
        table.add(self.momentum * m - learning_rate * gradient if self.nesterov else m)
