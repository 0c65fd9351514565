from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LowRankFeatureGate(keras.layers.Layer):
    """Scales a vector entry by entry, row by row: `v * 2 sigmoid(sum_r a_r(v) B_r A_r v)`, with `a(v) = softmax(W v)`.

    `A_r` maps to `rank` numbers and `B_r` back. `B` starts at zero, which makes the gate the identity; `A` and `W` get
    a gradient once `B` has moved.

    Args:
        num_pieces: The number of maps `B_r A_r`. With one, `a = 1` and there is no W.
        rank: The inner width of each map.

    Input: (batch, width). Output: (batch, width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import LowRankFeatureGate
    >>> LowRankFeatureGate(num_pieces=2, rank=1)(np.array([[1.0, -2.0]], "float32")).numpy().tolist()
    [[1.0, -2.0]]

    Reference: Wang et al., 2024, arXiv:2408.05430; see `HoME` for what is not confirmed.
    """

    def __init__(self, num_pieces: int = 2, rank: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_pieces = check.check_count("num_pieces", num_pieces)
        self.rank = check.check_int("rank", rank)

    def build(self, input_shape: Shape) -> None:
        width, inner = input_shape[-1], self.num_pieces * self.rank
        self.down = self.add_weight(shape=(width, inner), initializer="glorot_uniform", name="down")
        self.up = self.add_weight(shape=(inner, width), initializer="zeros", name="up")
        self.choice = None
        if self.num_pieces > 1:
            self.choice = self.add_weight(shape=(width, self.num_pieces), initializer="glorot_uniform", name="choice")

    def call(self, inputs: Tensor) -> Tensor:
        inner = ops.matmul(inputs, self.down)
        if self.choice is not None:
            chosen = ops.softmax(ops.matmul(inputs, self.choice), axis=-1)
            inner = inner * ops.repeat(chosen, self.rank, axis=-1)
        return inputs * 2.0 * ops.sigmoid(ops.matmul(inner, self.up))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "num_pieces": self.num_pieces, "rank": self.rank}
