from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import real_tokens, without_padding
from mtl_zoo.layers.text._base import TextEncoder


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TextAttention(TextEncoder):
    """The weighted mean of a text's tokens, with learned weights.

    With `x_1 .. x_n` the vectors of the real tokens:

        s_i = <v, tanh(W x_i + b)>
        a   = softmax over i of s
        y   = sum_i a_i x_i

    Padding has weight 0, and a text without tokens gives zeros. The softmax is taken in float32.

    Args:
        units: Rows of `W`.

    Input: tokens (batch, length, dim), and `mask` (batch, length): which are real. Output: (batch, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.text import TextAttention
    >>> tokens = np.array([[[1.0, 3.0], [3.0, 5.0], [9.0, 9.0]]], "float32")
    >>> layer = TextAttention(2)
    >>> layer.build(tokens.shape)
    >>> layer.set_weights([np.zeros(w.shape) for w in layer.get_weights()])  # equal weights: the mean
    >>> layer(tokens, mask=np.array([[True, True, False]])).numpy().tolist()
    [[2.0, 4.0]]

    Reference: Yang et al., NAACL 2016, doi:10.18653/v1/N16-1174.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units, maximum=check.MAX_UNITS)
        self.hidden = keras.layers.Dense(units, activation="tanh", name="hidden", dtype=self.dtype_policy)
        self.score = keras.layers.Dense(1, use_bias=False, name="score", dtype=self.dtype_policy)

    @property
    def width(self) -> int:
        return self.dim

    def build(self, input_shape: Shape) -> None:
        self.dim = int(input_shape[-1])
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))

    def weights_of_tokens(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weights `a`, (batch, length), float32; 0 where no token is."""
        real = real_tokens(inputs, mask)
        scores = ops.cast(self.score(self.hidden(without_padding(inputs, real))), "float32")[..., 0]
        weights = ops.softmax(ops.where(real, scores, ops.full_like(scores, -1e9)), axis=-1)
        return ops.where(real, weights, ops.zeros_like(weights))

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = ops.cast(self.weights_of_tokens(inputs, mask), inputs.dtype)
        return ops.sum(weights[..., None] * without_padding(inputs, real_tokens(inputs, mask)), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}
