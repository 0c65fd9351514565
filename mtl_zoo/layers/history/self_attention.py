from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import real_tokens, without_padding
from mtl_zoo.layers._transformer_block import TransformerBlock
from mtl_zoo.layers.history._query import check_query


@keras.saving.register_keras_serializable(package="mtl_zoo")
class HistorySelfAttention(keras.layers.Layer):
    """What a history leads to, read in its order by causal self-attention (SASRec), and how a candidate fits it.

    With `E` the vectors of the history, one a row and oldest first, `P` learned vectors of how long ago each is (0 the
    newest), and blocks of a Transformer in which no event looks at a later one:

        H_0 = sqrt(dim) E + P
        A_l = H_{l-1} + MHA(LN(H_{l-1}))
        H_l = A_l + W_2 gelu(W_1 LN(A_l) + b_1) + b_2    for l = 1 .. num_blocks
        h   = LN(H) at the newest event
        y   = [h; h * v]

    where `v` is the candidate's vector; without a candidate `y = h`. (The paper scores by the product of `h` and `v`,
    and counts positions from the start; counted from the end, a position means recency.) An empty history gives zeros.

    Args:
        num_blocks: The number of blocks.
        num_heads: Heads of the attention. The width of the vectors must be a multiple of it.
        hidden_units: Rows of `W_1`. Default: the width of the vectors.
        max_positions: Ages that have a vector; no history may be longer.
        dropout: The share of the numbers that each residual branch leaves out in training.

    Raises:
        ValueError: The width of the vectors is no multiple of `num_heads`, or they are more than `max_positions`; the
            candidate's vector is not as wide as those of the history.

    Input: rows (batch, length, dim); `query` (batch, dim) or None; `mask` (batch, length), False from the first padding
    on. Output: (batch, 2 dim), or (batch, dim) without a candidate.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.history import HistorySelfAttention
    >>> rows, candidate = np.ones((2, 5, 4), "float32"), np.ones((2, 4), "float32")
    >>> tuple(HistorySelfAttention()(rows, query=candidate).shape), tuple(HistorySelfAttention()(rows).shape)
    ((2, 8), (2, 4))

    Reference: Kang and McAuley, ICDM 2018, arXiv:1808.09781.
    """

    def __init__(
        self,
        num_blocks: int = 2,
        num_heads: int = 1,
        hidden_units: int | None = None,
        max_positions: int = 512,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_blocks = check.check_count("num_blocks", num_blocks)
        self.num_heads = check.check_count("num_heads", num_heads)
        if hidden_units is not None:
            check.check_int("hidden_units", hidden_units, maximum=check.MAX_UNITS)
        self.hidden_units = hidden_units
        self.max_positions = check.check_int("max_positions", max_positions, maximum=check.MAX_UNITS)
        self.dropout = check.check_number("dropout", dropout, minimum=0, below=1)

    def build(self, rows_shape: Shape, query_shape: Shape | None = None) -> None:
        length, dim = rows_shape[1], int(rows_shape[-1])
        if query_shape is not None:
            check_query(rows_shape, query_shape)
        if dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the width of the vectors. "
                f"Received: num_heads={self.num_heads}, vectors of width {dim}"
            )
        if length is not None and length > self.max_positions:
            raise ValueError(
                "`max_positions` must be at least the length of the history. "
                f"Received: max_positions={self.max_positions}, length {length}"
            )
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.ages = self.add_weight(shape=(self.max_positions, dim), initializer=start, name="ages")
        sizes = (self.num_heads, self.hidden_units or dim, self.dropout)
        self.blocks = []
        for i in range(self.num_blocks):
            self.blocks.append(TransformerBlock(*sizes, name=f"block_{i}", dtype=self.dtype_policy))
            self.blocks[-1].build(rows_shape)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", dtype=self.dtype_policy)
        self.norm.build(rows_shape)

    def call(
        self, rows: Tensor, query: Tensor | None = None, mask: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        real = real_tokens(rows, mask)
        x = self.states(rows, real, training=training)
        at = ops.arange(ops.shape(rows)[1], dtype="int32")
        is_newest = ops.logical_and(real, _ages(real, at) == 0)
        newest = ops.sum(without_padding(x, is_newest), axis=1)
        if query is None:
            return newest
        return ops.concatenate([newest, newest * ops.cast(query, newest.dtype)], axis=-1)

    def states(self, rows: Tensor, real: Tensor, training: bool | None = None) -> Tensor:
        """`LN(H)` at every event, of which none looks at a later one.

        Args:
            rows: The vectors, (batch, length, dim).
            real: Which are no padding, bool (batch, length).
            training: Whether branches leave numbers out.
        """
        length, dim = ops.shape(rows)[1], rows.shape[-1]
        at = ops.arange(length, dtype="int32")
        age = ops.clip(_ages(real, at), 0, self.max_positions - 1)
        ages = ops.take(ops.cast(self.ages, rows.dtype), age, axis=0)
        x = without_padding(rows * dim**0.5 + ages, real)
        may_look = ops.logical_and(real[:, None, :], (at[:, None] >= at[None, :])[None])
        for block in self.blocks:
            x = block(x, may_look, training=training)
        return self.norm(x)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # the output is no list

    def compute_output_shape(self, rows_shape: Shape, query_shape: Shape | None = None) -> Shape:
        return (rows_shape[0], rows_shape[-1] * (1 if query_shape is None else 2))

    def get_config(self) -> Config:
        names = ("num_blocks", "num_heads", "hidden_units", "max_positions", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _ages(real: Tensor, at: Tensor) -> Tensor:
    """How many events came after each, (batch, length), from the places `at` (length,)."""
    return ops.sum(ops.cast(real, "int32"), axis=1, keepdims=True) - 1 - at[None, :]
