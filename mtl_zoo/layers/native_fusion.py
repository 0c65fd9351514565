from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class NativeFusion(keras.layers.Layer):
    """A gated sum of all experts plus a linear sum of a unit's native experts: `f = sum_i g_i E_i + sum_j v_j N_j`.

    `v` is learned and the same for every row; for m native experts it starts uniform within `sqrt(1 / m)` of 0. A
    single native expert has a fixed `v = 1`.

    Input: weights (batch, experts), all experts (batch, experts, units), and those of them that are native to the unit
    (batch, m, units). Output: (batch, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import NativeFusion
    >>> experts = np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")
    >>> NativeFusion()(np.array([[0.5, 0.5]], "float32"), experts, experts[:, :1]).numpy().tolist()
    [[3.0, 5.0]]

    Reference: Li et al., KDD 2023, doi:10.1145/3580305.3599769.
    """

    def build(self, weights_shape: Shape, experts_shape: Shape, native_shape: Shape) -> None:
        count = native_shape[1]
        self.native_weights = None
        if count > 1:
            uniform = keras.initializers.RandomUniform(-(count**-0.5), count**-0.5)
            self.native_weights = self.add_weight(shape=(count,), initializer=uniform, name="native_weights")

    def call(self, weights: Tensor, experts: Tensor, native: Tensor) -> Tensor:
        fused = ops.squeeze(ops.matmul(ops.cast(weights, experts.dtype)[:, None, :], experts), axis=1)
        if self.native_weights is None:
            return fused + native[:, 0]
        return fused + ops.sum(self.native_weights[None, :, None] * native, axis=1)

    def compute_output_shape(self, weights_shape: Shape, experts_shape: Shape, native_shape: Shape) -> Shape:
        return (experts_shape[0], experts_shape[-1])
