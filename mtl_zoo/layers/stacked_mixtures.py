from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StackedMixtures(keras.layers.Layer):
    """Several weighted sums of the same experts, row by row: `f_r = sum_i g_ri E_i`, stacked over the readers r.

    Input: a list of R weights, each (batch, experts), and experts (batch, experts, units). Output: (batch, R, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import StackedMixtures
    >>> experts = np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")
    >>> weights = [np.array([[0.5, 0.5]], "float32"), np.array([[1.0, 0.0]], "float32")]
    >>> StackedMixtures()(weights, experts).numpy().tolist()
    [[[2.0, 3.0], [1.0, 2.0]]]
    """

    def call(self, weights: Sequence[Tensor], experts: Tensor) -> Tensor:
        return ops.matmul(ops.cast(ops.stack(weights, axis=1), experts.dtype), experts)

    def compute_output_shape(self, weights_shape: Sequence[Shape], experts_shape: Shape) -> Shape:
        return (experts_shape[0], len(weights_shape), experts_shape[-1])
