from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Tensor
from mtl_zoo.optimizers._rows import RowUpdates, TableRows


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LazyFtrl(RowUpdates, keras.optimizers.Ftrl):
    """FTRL-proximal that, for an embedding table, reads and writes only the rows of the batch.

    For each touched row, with its summed gradient `g` and `p = -learning_rate_power`:

        n' <- n + g^2
        z  <- z + g + 2 shrinkage w - (n'^p - n^p) / learning_rate w
        w  <- (clip(z, -l1, l1) - z) / (n'^p / learning_rate + 2 l2 + beta / learning_rate)

    Where every row is touched at every step, this is Keras' Ftrl. Elsewhere it differs: a row that no batch touched
    keeps its initial value, where Keras' sets it to zero in the first step, and shrinkage acts on touched rows only.

    Args:
        learning_rate: A number, or a Keras schedule. Default: 0.001.
        learning_rate_power: The power `-p`, at most 0. Default: -0.5.
        initial_accumulator_value: Where `n` starts. Default: 0.1.
        l1_regularization_strength: `l1`. Default: 0.0.
        l2_regularization_strength: `l2`. Default: 0.0.
        l2_shrinkage_regularization_strength: `shrinkage`. Default: 0.0.
        beta: The `beta` of the formula and of the paper. Default: 0.0.
        options: The options of `LazyAdam`.

    Raises:
        ValueError: In the cases of `LazyAdam`, or if an argument is outside its range.

    Reference: McMahan et al., KDD 2013, doi:10.1145/2487575.2488200.

    Example:

    >>> import keras, tensorflow as tf
    >>> from mtl_zoo.optimizers import LazyFtrl
    >>> table = keras.Variable([[0.0], [0.0], [0.0]])
    >>> twice_row_2 = tf.IndexedSlices(tf.constant([[1.0], [3.0]]), tf.constant([2, 2]), tf.constant([3, 1]))
    >>> LazyFtrl(0.5, initial_accumulator_value=9.0).apply([twice_row_2], [table])
    >>> print(table.numpy().ravel())
    [ 0.   0.  -0.4]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            learning_rate,
            learning_rate_power=learning_rate_power,
            initial_accumulator_value=initial_accumulator_value,
            l1_regularization_strength=l1_regularization_strength,
            l2_regularization_strength=l2_regularization_strength,
            l2_shrinkage_regularization_strength=l2_shrinkage_regularization_strength,
            beta=beta,
            **options,
        )

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        accumulator, linear = table.slot("accumulators"), table.slot("linears")
        power, l1 = -self.learning_rate_power, self.l1_regularization_strength
        w, n, z = table.read(), accumulator.read(), linear.read()
        new_n = n + ops.square(gradient)
        sigma = (ops.power(new_n, power) - ops.power(n, power)) / learning_rate
        z = z + gradient + 2 * self.l2_shrinkage_regularization_strength * w - sigma * w
        l2 = self.l2_regularization_strength + self.beta / (2 * learning_rate)
        quadratic = ops.power(new_n, power) / learning_rate + 2 * l2
        accumulator.write(new_n)
        linear.write(z)
        table.write((ops.clip(z, -l1, l1) - z) / quadratic)
