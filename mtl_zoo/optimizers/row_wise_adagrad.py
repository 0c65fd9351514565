from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _keras_private
from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.optimizers._rows import RowUpdates, TableRows, is_sparse


@keras.saving.register_keras_serializable(package="mtl_zoo")
class RowWiseAdagrad(RowUpdates, keras.optimizers.Optimizer):
    """Adagrad with one accumulator per row: a table of n rows needs n numbers beside it, whatever its width.

    For each touched row, with its summed gradient `g` of width d:

        a <- a + sum_j g_j^2 / d
        w <- w - learning_rate g / (sqrt(a) + epsilon)

    A row is an index of the first axis, so every element of a vector (such as a bias) has an accumulator of its own. A
    row without a gradient does not move, so sparse and dense gradients give the same weights. The optimizer is made for
    tables; `SplitOptimizer` combines it with another one for the other weights of a model.

    Args:
        learning_rate: A number, or a Keras schedule. Default: 0.01.
        initial_accumulator_value: Where `a` starts, at least 0. Default: 0.0.
        epsilon: Keeps the division finite, above 0. Default: 1e-8.
        options: The options of `LazyAdam`.

    Raises:
        ValueError: In the cases of `LazyAdam`, or if an argument is outside its range.

    Reference: Adagrad: Duchi, Hazan and Singer, JMLR 12 (2011); by row as `EXACT_ROWWISE_ADAGRAD` of FBGEMM.

    Example:

    >>> import keras, tensorflow as tf
    >>> from mtl_zoo.optimizers import RowWiseAdagrad
    >>> table = keras.Variable([[1.0, 1.0], [1.0, 1.0]])
    >>> row_1 = tf.IndexedSlices(tf.constant([[1.0, 7.0]]), tf.constant([1]), tf.constant([2, 2]))
    >>> RowWiseAdagrad(0.5).apply([row_1], [table])     # the mean square of (1, 7) is 25
    >>> print(table.numpy())
    [[1.  1. ]
     [0.9 0.3]]
    """

    def __init__(
        self, learning_rate: Any = 0.01, initial_accumulator_value: float = 0.0, epsilon: float = 1e-8, **options: Any
    ) -> None:
        check.check_number("initial_accumulator_value", initial_accumulator_value, minimum=0)
        check.check_number("epsilon", epsilon, above=0)
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        self.accumulators = []
        for variable in variables:
            name = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
            with _keras_private.beside(self, variable):
                slot = self.add_variable(
                    tuple(variable.shape)[:1], initializer, dtype=variable.dtype, name=f"{name}_accumulator"
                )
            self.accumulators.append(slot)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        if is_sparse(gradient):
            super().update_step(gradient, variable, learning_rate)
            return
        gradient, learning_rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        accumulator = self.accumulators[self.variable_index(variable)]
        self.assign_add(accumulator, _row_means(ops.square(gradient)))
        self.assign_sub(variable, self.move(gradient, ops.convert_to_tensor(accumulator), learning_rate))

    def update_rows(self, table: TableRows, gradient: Tensor, learning_rate: Any) -> None:
        accumulator = table.slot("accumulators")
        a = accumulator.read() + _row_means(ops.square(gradient))
        accumulator.write(a)
        table.subtract(self.move(gradient, a, learning_rate))

    def move(self, gradient: Tensor, accumulator: Tensor, learning_rate: Any) -> Tensor:
        """What a step subtracts from rows with this gradient and accumulator."""
        divisor = ops.sqrt(accumulator) + self.epsilon
        rank = len(gradient.shape)
        return learning_rate * gradient / (ops.reshape(divisor, (-1,) + (1,) * (rank - 1)) if rank > 1 else divisor)

    def get_config(self) -> Config:
        config = {"initial_accumulator_value": self.initial_accumulator_value, "epsilon": self.epsilon}
        return {**super().get_config(), **config}


def _row_means(x: Tensor) -> Tensor:
    return ops.mean(x, axis=tuple(range(1, len(x.shape)))) if len(x.shape) > 1 else x
