from __future__ import annotations

import itertools
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class SluiceUnit(keras.layers.Layer):
    """Mixes the subspaces of several columns, as it learns: `y = alpha h` over all subspaces of all columns.

    Each of T columns is cut into G subspaces of equal width, and `alpha`, (T G, T G), has one number for each pair. It
    starts with `diagonal` on the diagonal and rows that sum to 1. With `orthogonality` > 0, training adds

        orthogonality * sum_k sum_(a<b) || h_ka^T h_kb / batch size ||_F^2

    to the loss, where `h_ka` is the (batch, width / G) matrix of subspace a of column k before the mix.

    Args:
        num_subspaces: The number of subspaces, G. With 1 the unit is a `CrossStitchUnit`.
        diagonal: Where the diagonal of alpha starts.
        orthogonality: The factor of the penalty.

    Input: (batch, T, width). Output: the same shape.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import SluiceUnit
    >>> y = SluiceUnit(num_subspaces=2, diagonal=0.625)(np.array([[[1.0, 0.0], [0.0, 0.0]]], "float32"))
    >>> y.numpy().tolist()
    [[[0.625, 0.125], [0.125, 0.125]]]

    Reference: Ruder et al., AAAI 2019, arXiv:1705.08142.
    """

    def __init__(
        self, num_subspaces: int = 2, diagonal: float = 0.9, orthogonality: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_subspaces = check.check_count("num_subspaces", num_subspaces)
        self.diagonal = check.check_number("diagonal", diagonal)
        self.orthogonality = check.check_number("orthogonality", orthogonality, minimum=0)

    def build(self, input_shape: Shape) -> None:
        columns, width = input_shape[1:]
        if width % self.num_subspaces:
            raise ValueError(
                f"`num_subspaces` must divide the width of the columns. Received: num_subspaces={self.num_subspaces} "
                f"for columns of width {width}"
            )
        parts = columns * self.num_subspaces
        other = (1 - self.diagonal) / max(parts - 1, 1)
        start = [[self.diagonal if i == j else other for j in range(parts)] for i in range(parts)]
        if parts == 1:
            start = [[1.0]]

        def initializer(shape: Shape, dtype: Any = None) -> Tensor:
            return ops.convert_to_tensor(start, dtype=dtype)

        self.alpha = self.add_weight(shape=(parts, parts), initializer=initializer, name="alpha")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        columns, width = inputs.shape[1:]
        parts = columns * self.num_subspaces
        if training and self.orthogonality and self.num_subspaces > 1:
            self.add_loss(self.orthogonality * self._overlap(inputs))
        subspaces = ops.reshape(inputs, (-1, parts, width // self.num_subspaces))
        mixed = ops.matmul(ops.cast(self.alpha, inputs.dtype), subspaces)
        return ops.reshape(mixed, (-1, columns, width))

    def _overlap(self, inputs: Tensor) -> Tensor:
        rows = ops.cast(ops.shape(inputs)[0], "float32")
        subspaces = ops.split(ops.cast(inputs, "float32"), self.num_subspaces, axis=-1)
        products = [ops.einsum("bkc,bkd->kcd", a, b) / rows for a, b in itertools.combinations(subspaces, 2)]
        return sum(ops.sum(ops.square(product)) for product in products)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_subspaces": self.num_subspaces,
            "diagonal": self.diagonal,
            "orthogonality": self.orthogonality,
        }
