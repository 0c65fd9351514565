from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class NeighbourAttention(keras.layers.Layer):
    """Social attention: the vector of a node's neighbours, each weighted by how it fits the node itself.

    With `q` the node's own vector and `e_v` those of its neighbours:

        s_v = w^T relu(W [e_v ; q] + b)
        y   = sum_v softmax(s)_v e_v

    The softmax is over real neighbours; a node without any gives zeros.

    Args:
        units: Width of the hidden layer. Default: that of the vectors.

    Input: (batch, 1 + length, dim), the node itself first, and `mask`, booleans (batch, 1 + length) that tell which are
    real. Output: (batch, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import NeighbourAttention
    >>> vectors, real = np.ones((2, 4, 3), "float32"), np.array([[True] * 3 + [False], [True] + [False] * 3])
    >>> NeighbourAttention()(vectors, mask=real).numpy().round(3).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]

    Reference: Fan et al., Graph Neural Networks for Social Recommendation (GraphRec), WWW 2019,
    https://arxiv.org/abs/1902.07243.
    """

    def __init__(self, units: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = None if units is None else check.check_int("units", units)

    def build(self, input_shape: Shape) -> None:
        dim = input_shape[-1]
        units = self.units or dim
        self.of_neighbours = self.add_weight((dim, units), "glorot_uniform", name="of_neighbours")
        self.of_node = self.add_weight((dim, units), "glorot_uniform", name="of_node")
        self.bias = self.add_weight((units,), "zeros", name="bias")
        self.score = self.add_weight((units, 1), "glorot_uniform", name="score")

    def call(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        node, neighbours = vectors[:, :1], vectors[:, 1:]
        hidden = ops.relu(ops.matmul(neighbours, self.of_neighbours) + ops.matmul(node, self.of_node) + self.bias)
        scores = ops.matmul(hidden, self.score)
        if mask is not None:
            real = ops.cast(mask, "bool")[:, 1:, None]
            lowest = ops.full_like(scores, -1e4)  # which half precision holds, too
            scores = ops.where(real, scores, lowest)
            shares = ops.where(real, ops.softmax(scores, axis=1), ops.zeros_like(scores))
        else:
            shares = ops.softmax(scores, axis=1)
        return ops.sum(shares * neighbours, axis=1)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """One vector a node: nothing is left to mask."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
