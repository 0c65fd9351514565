from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class UnstackColumns(keras.layers.Layer):
    """The columns of one tensor as several: the opposite of `StackColumns`.

    Input: (batch, n, units). Output: a list of n tensors (batch, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import UnstackColumns
    >>> [column.numpy().tolist() for column in UnstackColumns()(np.array([[[1.0], [2.0]]], "float32"))]
    [[[1.0]], [[2.0]]]
    """

    def call(self, inputs: Tensor) -> list[Tensor]:
        return ops.unstack(inputs, inputs.shape[1], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> list[Shape]:
        return [(input_shape[0], input_shape[-1]) for _ in range(input_shape[1])]
