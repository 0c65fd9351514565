from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StackColumns(keras.layers.Layer):
    """Stacks several tensors of one shape, for an `ExpertBank` whose experts have one input each.

    Input: a list of n tensors (batch, units). Output: (batch, n, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import StackColumns
    >>> StackColumns()([np.zeros((2, 4)), np.ones((2, 4)), np.ones((2, 4))]).shape[1:]
    TensorShape([3, 4])
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return ops.stack(inputs, axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], len(input_shape), input_shape[0][-1])
