from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import real_tokens, without_padding
from mtl_zoo.layers.dense_stack import DenseStack
from mtl_zoo.layers.history._query import check_query
from mtl_zoo.options import MLP, Units, as_mlp


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TargetAttention(keras.layers.Layer):
    """The part of a history that matters for a candidate (Deep Interest Network).

    With `e_1 .. e_n` the vectors of a history, `v` that of the candidate, and `*` the product by element:

        a_i = w^T MLP([e_i; v; e_i - v; e_i * v]) + b
        y   = sum_i a_i e_i

    The weights `a` are not normalised, so that a long history of one interest counts more than a short one. The order
    does not matter, padding has no weight, and an empty history gives zeros.

    Args:
        mlp: An `MLP`, or its layer widths. Default: 80 and 40 sigmoids.

    Raises:
        ValueError: The candidate's vector is not as wide as those of the history.

    Input: rows (batch, length, dim); `query` (batch, dim), the candidate; `mask` (batch, length). Output: (batch, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.history import TargetAttention
    >>> rows, candidate = np.ones((2, 5, 4), "float32"), np.ones((2, 4), "float32")
    >>> tuple(TargetAttention()(rows, query=candidate).shape)
    (2, 4)

    Reference: Zhou et al., KDD 2018, arXiv:1706.06978.
    """

    def __init__(self, mlp: Units = MLP((80, 40), activation="sigmoid"), **kwargs: Any) -> None:  # noqa: B008
        super().__init__(**kwargs)
        self.supports_masking = True
        self.mlp = as_mlp("mlp", mlp, allow_empty=True)
        self.hidden = DenseStack(self.mlp, name="hidden", dtype=self.dtype_policy)
        self.score = keras.layers.Dense(1, name="score", dtype=self.dtype_policy)

    def build(self, rows_shape: Shape, query_shape: Shape) -> None:
        check_query(rows_shape, query_shape)
        pairs = (*rows_shape[:-1], 4 * int(rows_shape[-1]))
        self.hidden.build(pairs)
        self.score.build((*pairs[:-1], self.mlp.units[-1] if self.mlp.units else pairs[-1]))

    def call(self, rows: Tensor, query: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        candidate = ops.broadcast_to(ops.cast(query, rows.dtype)[:, None, :], ops.shape(rows))
        pairs = ops.concatenate([rows, candidate, rows - candidate, rows * candidate], axis=-1)
        weights = self.score(self.hidden(pairs, training=training))
        return ops.sum(without_padding(weights * rows, real_tokens(rows, mask)), axis=1)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # the output is no list

    def compute_output_shape(self, rows_shape: Shape, query_shape: Shape) -> Shape:
        return (rows_shape[0], rows_shape[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "mlp": keras.saving.serialize_keras_object(self.mlp)}

    @classmethod
    def from_config(cls, config: Config) -> TargetAttention:
        return cls(**{**config, "mlp": keras.saving.deserialize_keras_object(config["mlp"])})
