from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Tensor
from mtl_zoo.optimizers._rows import RowUpdates, TableRows


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LazyAdam(RowUpdates, keras.optimizers.Adam):
    """Adam that, for an embedding table, reads and writes only the rows of the batch.

    For each touched row, with its summed gradient `g` and the global step `t`:

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        w <- w - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)

    Where every row is touched at every step, this is Keras' Adam. Elsewhere it differs: the moments of a row that a
    batch leaves out do not decay, and the row does not go on moving by its momentum. Weights with a dense gradient are
    updated by Keras' Adam itself, so one LazyAdam serves the whole model. Gradients are clipped as the dense gradient
    of the global batch would be: duplicate ids and replicas are summed first. On TensorFlow a table's gradient is by
    row; on JAX the training step of this package's models makes it so.

    Args:
        learning_rate: A number, or a Keras schedule. Default: 0.001.
        beta_1: Decay of the first moment. Default: 0.9.
        beta_2: Decay of the second moment. Default: 0.999.
        epsilon: Keeps the division finite. Default: 1e-7.
        amsgrad: Whether to divide by the largest second moment so far. Default: False.
        options: `clipnorm`, `clipvalue`, `global_clipnorm` and `name`, as in Keras.

    Raises:
        ValueError: If `weight_decay`, `use_ema`, `gradient_accumulation_steps` or `loss_scale_factor` is given. Each
            would touch the whole table at every step, or mean something else when applied by row.

    Reference: Kingma and Ba, ICLR 2015, arXiv:1412.6980; by row as `LazyAdam` of TensorFlow Addons.

    Example:

    >>> import keras, tensorflow as tf
    >>> from mtl_zoo.optimizers import LazyAdam
    >>> table = keras.Variable([[1.0], [1.0], [1.0]])
    >>> twice_row_2 = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([2, 2]), tf.constant([3, 1]))
    >>> LazyAdam(0.5).apply([twice_row_2], [table])
    >>> print(table.numpy().ravel().round(3))
    [1.  1.  0.5]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, amsgrad=amsgrad, **options)

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        step = ops.cast(self.iterations + 1, gradient.dtype)
        bias_1 = 1 - ops.power(ops.cast(self.beta_1, gradient.dtype), step)
        bias_2 = 1 - ops.power(ops.cast(self.beta_2, gradient.dtype), step)
        momentum, velocity = table.slot("momentums"), table.slot("velocities")
        m, v = momentum.read(), velocity.read()
        m = m + (gradient - m) * (1 - self.beta_1)
        v = v + (ops.square(gradient) - v) * (1 - self.beta_2)
        momentum.write(m)
        velocity.write(v)
        if self.amsgrad:
            largest = table.slot("velocity_hats")
            v = ops.maximum(largest.read(), v)
            largest.write(v)
        table.subtract(m * (learning_rate * ops.sqrt(bias_2) / bias_1) / (ops.sqrt(v) + self.epsilon))
