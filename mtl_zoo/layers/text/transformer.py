from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import mean_of_real, real_tokens, without_padding
from mtl_zoo.layers._transformer_block import TransformerBlock
from mtl_zoo.layers.text._base import TextEncoder


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TextTransformer(TextEncoder):
    """Blocks of self-attention over a text, and the mean of what they make of its tokens.

    With `X` the vectors of the real tokens, one a row, `P` the learned vectors of their positions, and `LN` a layer
    norm:

        H_0 = X + P
        A_l = H_{l-1} + MHA(LN(H_{l-1}))
        H_l = A_l + W_2 gelu(W_1 LN(A_l) + b_1) + b_2    for l = 1 .. num_blocks
        y   = mean over tokens of LN(H)

    Padding is attended by no token and does not count in the mean; a text without tokens gives zeros.

    Args:
        num_blocks: The number of blocks.
        num_heads: Heads of the attention. The width of the tokens must be a multiple of it.
        hidden_units: Rows of `W_1`.
        max_positions: Positions that have a vector; no text may be longer.
        dropout: The share of the numbers that each residual branch leaves out in training.

    Raises:
        ValueError: The width of the tokens is no multiple of `num_heads`, or they are more than `max_positions`.

    Input: tokens (batch, length, dim), and `mask` (batch, length): which are real. Output: (batch, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.text import TextTransformer
    >>> layer = TextTransformer(num_blocks=1, num_heads=2, hidden_units=8)
    >>> layer(np.zeros((2, 7, 4), "float32"), mask=np.ones((2, 7), "bool")).shape[1:]
    TensorShape([4])

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762; norms before the branches as in Xiong et al., ICML 2020,
    arXiv:2002.04745.
    """

    def __init__(
        self,
        num_blocks: int = 2,
        num_heads: int = 4,
        hidden_units: int = 64,
        max_positions: int = 512,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_blocks = check.check_count("num_blocks", num_blocks)
        self.num_heads = check.check_count("num_heads", num_heads)
        self.hidden_units = check.check_int("hidden_units", hidden_units, maximum=check.MAX_UNITS)
        self.max_positions = check.check_int("max_positions", max_positions, maximum=check.MAX_UNITS)
        self.dropout = check.check_number("dropout", dropout, minimum=0, below=1)

    @property
    def width(self) -> int:
        return self.dim

    def build(self, input_shape: Shape) -> None:
        length, self.dim = input_shape[1], int(input_shape[-1])
        if self.dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the width of the tokens. "
                f"Received: num_heads={self.num_heads}, tokens of width {self.dim}"
            )
        self._check_length(length)
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(shape=(self.max_positions, self.dim), initializer=start, name="positions")
        self.blocks = []
        for i in range(self.num_blocks):
            sizes = (self.num_heads, self.hidden_units, self.dropout)
            self.blocks.append(TransformerBlock(*sizes, name=f"block_{i}", dtype=self.dtype_policy))
            self.blocks[-1].build(input_shape)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", dtype=self.dtype_policy)
        self.norm.build(input_shape)

    def _check_length(self, length: int | None) -> None:
        if length is not None and length > self.max_positions:
            raise ValueError(
                "`max_positions` must be at least the length of the texts. "
                f"Received: max_positions={self.max_positions}, {length} tokens"
            )

    def call(self, inputs: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        self._check_length(inputs.shape[1])
        real = real_tokens(inputs, mask)
        positions = ops.cast(self.positions, inputs.dtype)[: ops.shape(inputs)[1]]
        x = without_padding(inputs, real) + positions
        for block in self.blocks:
            x = block(x, real[:, None, :], training=training)
        return mean_of_real(self.norm(x), real)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "num_heads": self.num_heads,
            "hidden_units": self.hidden_units,
            "max_positions": self.max_positions,
            "dropout": self.dropout,
        }
