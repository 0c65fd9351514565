from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class CrossStitchUnit(keras.layers.Layer):
    """A learned mix of the columns of several tasks: `y_i = sum_j alpha_ij x_j`.

    `alpha` starts with `diagonal` on the diagonal and `(1 - diagonal) / (T - 1)` elsewhere, so that rows sum to 1. A
    single column is passed on as it is.

    Args:
        per_channel: Whether every unit has an alpha of its own, instead of one for all:
            `y_i[:, c] = sum_j alpha_ijc x_j[:, c]`.
        diagonal: Where the diagonal of alpha starts.
        learning_rate_multiplier: The multiple of the optimizer's learning rate at which alpha learns. With `m` the
            multiplier and `s` the stored weight, `alpha = m s` while the gradient with respect to `s` is that with
            respect to `alpha`: this is exact for SGD (with or without momentum) and for optimizers that do not depend
            on the gradient's scale, such as Adam. Weight decay acts on alpha at the optimizer's own learning rate.

    Input: T tensors (batch, units). Output: T tensors of the same shape.

    Reference: Misra et al., CVPR 2016, arXiv:1604.03539, eq. 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import CrossStitchUnit
    >>> a, b = CrossStitchUnit(diagonal=0.75)([np.ones((1, 2)), np.zeros((1, 2))])
    >>> a.numpy().tolist(), b.numpy().tolist()
    ([[0.75, 0.75]], [[0.25, 0.25]])
    """

    def __init__(
        self, per_channel: bool = False, diagonal: float = 0.9, learning_rate_multiplier: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.per_channel = bool(per_channel)
        self.diagonal = check.check_number("diagonal", diagonal)
        self.learning_rate_multiplier = check.check_number(
            "learning_rate_multiplier", learning_rate_multiplier, above=0
        )

    def build(self, input_shape: Sequence[Shape]) -> None:
        columns = len(input_shape)
        other = (1 - self.diagonal) / max(columns - 1, 1)
        start = [[self.diagonal if i == j else other for j in range(columns)] for i in range(columns)]
        if columns == 1:
            start = [[1.0]]
        shape = (columns, columns, input_shape[0][-1] if self.per_channel else 1)

        def initializer(shape: Shape, dtype: Any = None) -> Tensor:
            matrix = ops.convert_to_tensor(start, dtype=dtype)[:, :, None] / self.learning_rate_multiplier
            return ops.broadcast_to(matrix, shape)

        self.stored = self.add_weight(shape=shape, initializer=initializer, name="stored")

    @property
    def matrix(self) -> Tensor:
        """alpha, (T, T), or (T, T, units) with `per_channel`."""
        alpha = self.stored * self.learning_rate_multiplier
        return alpha if self.per_channel else alpha[:, :, 0]

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        stored = ops.cast(self.stored, self.compute_dtype)
        alpha = stored + ops.stop_gradient((self.learning_rate_multiplier - 1) * stored)
        columns = ops.stack(inputs, axis=1)
        if self.per_channel:
            mixed = ops.einsum("ijc,bjc->bic", alpha, columns)
        else:
            mixed = ops.matmul(alpha[:, :, 0], columns)
        return ops.unstack(mixed, len(inputs), axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in input_shape]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "per_channel": self.per_channel,
            "diagonal": self.diagonal,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
