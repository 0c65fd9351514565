from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class DomainBlocks(keras.layers.Layer):
    """Puts a vector in the block of its row's domain and zeros in the others: `[s_1 x, .., s_D x, s_1, .., s_D]`.

    With `s` the row's shares of the domains (see `DomainShares`), a linear layer on top acts as one linear layer for
    each domain, biases included: `x W_d + b_d` for a row of domain d, and the mean of all of them for a row whose
    domain is not known.

    Input: (batch, width) and shares (batch, domains). Output: (batch, domains * (width + 1)).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import DomainBlocks
    >>> DomainBlocks()(np.array([[7.0, 8.0]]), np.array([[0.0, 1.0]])).numpy().tolist()
    [[0.0, 0.0, 7.0, 8.0, 0.0, 1.0]]
    """

    def call(self, inputs: Tensor, shares: Tensor) -> Tensor:
        blocks = ops.reshape(shares[:, :, None] * inputs[:, None, :], (-1, shares.shape[-1] * inputs.shape[-1]))
        return ops.concatenate([blocks, shares], axis=-1)

    def compute_output_shape(self, inputs_shape: Shape, shares_shape: Shape) -> Shape:
        return (inputs_shape[0], shares_shape[-1] * (inputs_shape[-1] + 1))
