"""The block of a Transformer, which texts and histories share."""

from __future__ import annotations

from typing import Any

import keras

from mtl_zoo._types import Shape, Tensor


class TransformerBlock(keras.layers.Layer):
    """Attention and a network, each on a normalised copy, added to what they read.

        A = X + MHA(LN(X))
        Y = A + W_2 gelu(W_1 LN(A) + b_1) + b_2

    Args:
        num_heads: Heads of the attention; the width of `X` must be a multiple of it.
        hidden_units: Rows of `W_1`.
        dropout: The share of the numbers that each branch leaves out in training.

    Input: `X` (batch, length, dim), and booleans (batch, length or 1, length): which position may look at which.
    Output: (batch, length, dim).
    """

    def __init__(self, num_heads: int, hidden_units: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.hidden_units, self.dropout = num_heads, hidden_units, dropout

    def build(self, shape: Shape) -> None:
        dim, dtype = int(shape[-1]), self.dtype_policy
        self.first_norm = keras.layers.LayerNormalization(epsilon=1e-6, name="first_norm", dtype=dtype)
        self.attention = keras.layers.MultiHeadAttention(
            self.num_heads, dim // self.num_heads, name="attention", dtype=dtype
        )
        self.second_norm = keras.layers.LayerNormalization(epsilon=1e-6, name="second_norm", dtype=dtype)
        self.hidden = keras.layers.Dense(self.hidden_units, activation="gelu", name="hidden", dtype=dtype)
        self.out = keras.layers.Dense(dim, name="out", dtype=dtype)
        self.drop = keras.layers.Dropout(self.dropout, name="dropout", dtype=dtype)
        self.first_norm.build(shape)
        self.attention.build(shape, shape)
        self.second_norm.build(shape)
        self.hidden.build(shape)
        self.out.build((*shape[:-1], self.hidden.units))
        self.drop.build(shape)

    def call(self, x: Tensor, may_look: Tensor, training: bool | None = None) -> Tensor:
        normed = self.first_norm(x)
        attended = self.attention(normed, normed, attention_mask=may_look, training=training)
        x = x + self.drop(attended, training=training)
        return x + self.drop(self.out(self.hidden(self.second_norm(x))), training=training)
