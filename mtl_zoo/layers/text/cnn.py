from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import real_tokens, without_padding
from mtl_zoo.layers.text._base import TextEncoder


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TextCNN(TextEncoder):
    """Convolutions of several widths over a text, and the largest answer of each filter.

    With `x_1 .. x_n` the vectors of the real tokens, zeros behind them, and `w` each of the widths:

        c_i = relu(W_w [x_i; ..; x_{i+w-1}] + b_w)    for i = 1 .. n
        y_w = max_i c_i

    and the `y_w` stand side by side. A window counts if it begins at a real token, so that a text shorter than a window
    has one, and padding has none. A text without tokens gives zeros.

    Args:
        filters: Filters of each width.
        widths: Widths of the windows, in tokens.
        activation: Keras activation of the convolutions.

    Input: tokens (batch, length, dim), and `mask` (batch, length): which are real. Output: (batch, widths * filters).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers.text import TextCNN
    >>> TextCNN(4)(np.zeros((2, 7, 3), "float32"), mask=np.ones((2, 7), "bool")).shape[1:]
    TensorShape([12])

    Reference: Kim, EMNLP 2014, arXiv:1408.5882.
    """

    def __init__(
        self, filters: int, widths: Sequence[int] = (3, 4, 5), activation: str = "relu", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = check.check_int("filters", filters, maximum=check.MAX_UNITS)
        self.widths = check.check_units("widths", widths)
        check.check_unique_names("widths", [str(width) for width in self.widths])
        self.activation = activation
        self.convolutions = [
            keras.layers.Conv1D(filters, width, activation=activation, name=f"width_{width}", dtype=self.dtype_policy)
            for width in self.widths
        ]

    @property
    def width(self) -> int:
        return self.filters * len(self.widths)

    def build(self, input_shape: Shape) -> None:
        for convolution in self.convolutions:
            convolution.build((input_shape[0], None, input_shape[-1]))

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        real = real_tokens(inputs, mask)
        rows = without_padding(inputs, real)
        largest = []
        for width, convolution in zip(self.widths, self.convolutions, strict=True):
            # One row more, since without rows TensorFlow's convolution by oneDNN (2.21) gives another shape.
            found = convolution(ops.pad(rows, ((0, 1), (0, width - 1), (0, 0))))[:-1]
            lowest = ops.full_like(found, -float("inf"))
            largest.append(ops.max(ops.where(real[..., None], found, lowest), axis=1))
        joined = ops.concatenate(largest, axis=-1)
        return ops.where(ops.any(real, axis=1, keepdims=True), joined, ops.zeros_like(joined))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "widths": self.widths,
            "activation": self.activation,
        }
