from __future__ import annotations

import keras

from mtl_zoo import _gradients
from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StopGradient(keras.layers.Layer):
    """The identity, through which no gradient passes.

    Input: a tensor. Output: the same tensor.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import StopGradient
    >>> StopGradient()(np.array([[1.0, 2.0]], "float32")).numpy().tolist()
    [[1.0, 2.0]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        return _gradients.stop_gradient(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
