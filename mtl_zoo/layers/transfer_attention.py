from __future__ import annotations

import math

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TransferAttention(keras.layers.Layer):
    """Attention of a step of a funnel over its own vector and the one that the step before passes on.

    With `u` the rows of `X = [own; passed]`, and `V = X W1`, `K = X W2`, `Q = X W3` without biases:

        w = softmax over u of (<K_u, Q_u> / sqrt(units))
        z = sum_u w_u V_u

    Each row is scored against itself. The kernels start from N(0, 0.01^2), as in the authors' code.

    Input: `own` and `passed`, both (batch, units). Output: (batch, units).

    Reference: Xi et al., KDD 2021, arXiv:2105.08489.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import TransferAttention
    >>> own, passed = np.array([[1.0, 0.0]], "float32"), np.array([[0.0, 2.0]], "float32")
    >>> layer = TransferAttention()
    >>> layer.build(own.shape, passed.shape)
    >>> layer.set_weights([np.eye(2), np.eye(2), np.eye(2)])
    >>> [round(float(weight), 3) for weight in layer.attention(own, passed)[0]]
    [0.107, 0.893]
    """

    def build(self, own_shape: Shape, passed_shape: Shape) -> None:
        units = own_shape[-1]
        if passed_shape[-1] != units:
            raise ValueError(
                "`passed` must be as wide as `own`. "
                f"Received: own of shape {tuple(own_shape)}, passed of shape {tuple(passed_shape)}"
            )
        self.value, self.key, self.query = (
            # Each has an initializer of its own, since one object would make the three equal.
            self.add_weight(shape=(units, units), initializer=keras.initializers.RandomNormal(stddev=0.01), name=name)
            for name in ("value", "key", "query")
        )

    def attention(self, own: Tensor, passed: Tensor) -> Tensor:
        """The weights of `own` and `passed` by row: (batch, 2), float32."""
        rows = ops.stack([own, passed], axis=1)
        scores = ops.sum(ops.cast(ops.matmul(rows, self.key) * ops.matmul(rows, self.query), "float32"), axis=-1)
        return ops.softmax(scores / math.sqrt(self.key.shape[0]), axis=-1)

    def call(self, own: Tensor, passed: Tensor) -> Tensor:
        values = ops.matmul(ops.stack([own, passed], axis=1), self.value)
        weights = ops.cast(self.attention(own, passed), values.dtype)
        return ops.sum(weights[:, :, None] * values, axis=1)

    def compute_output_shape(self, own_shape: Shape, passed_shape: Shape) -> Shape:
        return tuple(own_shape)
