"""What the encoders of texts have in common."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


class TextEncoder(keras.layers.Layer):
    """From the vectors of tokens, (batch, length, dim), and which are real, (batch, length), to (batch, width)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    @property
    def width(self) -> int:
        """Width of the vector of a text."""
        raise NotImplementedError

    def compute_mask(self, *inputs: Any, **named: Any) -> None:
        return None  # the output has no tokens

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.width)


def real_tokens(rows: Tensor, mask: Tensor | None) -> Tensor:
    """`mask` as booleans; without one every token is real."""
    return ops.ones(ops.shape(rows)[:2], dtype="bool") if mask is None else ops.cast(mask, "bool")


def without_padding(rows: Tensor, real: Tensor) -> Tensor:
    """`rows` with zeros where no token is."""
    return ops.where(real[..., None], rows, ops.zeros_like(rows))


def mean_of_real(rows: Tensor, real: Tensor) -> Tensor:
    """The mean of the real tokens' rows, (batch, dim); zeros where there is none."""
    count = ops.sum(ops.cast(real, "float32"), axis=1, keepdims=True)
    total = ops.sum(ops.cast(without_padding(rows, real), "float32"), axis=1)
    return ops.cast(total / ops.maximum(count, 1.0), rows.dtype)
