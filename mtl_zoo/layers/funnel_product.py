from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FunnelProduct(keras.layers.Layer):
    """The logit of a product of two probabilities, from their logits: `-logsumexp(-a, -b, -a - b)`.

    With `p = sigmoid(a)` and `q = sigmoid(b)`, the odds against `pq` are `1/(pq) - 1 = e^-a + e^-b + e^(-a-b)`. This is
    exact for all logits: no probability is computed, so none is rounded to 0 or 1. The computation is in float32 at
    least.

    Input: two tensors of one shape. Output: that shape.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import FunnelProduct
    >>> logit = FunnelProduct()(np.array([[0.0]], "float32"), np.array([[0.0]], "float32"))
    >>> round(1 / (1 + float(np.exp(-logit[0, 0]))), 6)
    0.25
    """

    def call(self, first: Tensor, second: Tensor) -> Tensor:
        first, second = ops.cast(first, "float32"), ops.cast(second, "float32")
        return -ops.logsumexp(ops.stack([-first, -second, -first - second], axis=0), axis=0)

    def compute_output_shape(self, first_shape: Shape, second_shape: Shape) -> Shape:
        return tuple(first_shape)

    def compute_output_spec(self, first: Tensor, second: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(first.shape, dtype="float32")
