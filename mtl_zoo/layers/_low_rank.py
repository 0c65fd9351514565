"""Low-rank updates of kernels, which train in place of the kernels themselves."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LowRankUpdate(keras.layers.Layer):
    """The update `(alpha / rank) A B` of a kernel (..., in, out), with A (..., in, rank) and B (..., rank, out).

    It has no weights until `attach` is called: the layer that holds it is then what it was. B starts as zeros, so an
    update changes nothing before it is trained.
    """

    scale = 1.0

    def attach(self, kernel_shape: Shape, rank: int, alpha: float) -> None:
        """Gives the update of a kernel its weights.

        Args:
            kernel_shape: Shape of the kernel.
            rank: Of the update.
            alpha: The update is scaled by `alpha / rank`.
        """
        *stacked, inputs, outputs = kernel_shape
        self.scale = alpha / rank
        # float32 whatever the policy: half precision would lose small updates.
        self.down = self.add_weight((*stacked, inputs, rank), _draw, "float32", name="down")
        self.up = self.add_weight((*stacked, rank, outputs), "zeros", "float32", name="up")
        self.built = True

    def change(self, dtype: Any) -> Tensor:
        """What is added to the kernel."""
        return ops.cast(ops.matmul(self.down, self.up) * self.scale, dtype)

    def call(self, inputs: Tensor) -> Tensor:
        """What the update adds to `inputs @ kernel`, for a kernel (in, out)."""
        low = ops.matmul(inputs, ops.cast(self.down, inputs.dtype))
        return ops.matmul(low, ops.cast(self.up, inputs.dtype)) * self.scale


def _draw(shape: Shape, dtype: Any = None) -> Tensor:
    """As "he_uniform" draws a single kernel; the fans of a stack of them would be others."""
    limit = (6.0 / shape[-2]) ** 0.5
    return keras.random.uniform(shape, -limit, limit, dtype=dtype)


def check_rank(rank: Any, alpha: Any) -> tuple[int, float]:
    """The checked rank and scale; alpha is the rank by default."""
    rank = check.check_int("adapters", rank)
    return rank, float(rank) if alpha is None else check.check_number("alpha", alpha, above=0)
