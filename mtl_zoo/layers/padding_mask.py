from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class PaddingMask(keras.layers.Layer):
    """Tells which steps of a sequence are real: those whose id is not 0.

    Input: ids (batch, length). Output: (batch, length) booleans.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import PaddingMask
    >>> PaddingMask()(np.array([[5, 1, 0]])).numpy().tolist()
    [[True, True, False]]
    """

    def call(self, ids: Tensor) -> Tensor:
        return ops.not_equal(ids, 0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def compute_output_spec(self, ids: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(ids.shape, dtype="bool")
