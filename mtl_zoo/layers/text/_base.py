"""What the encoders of texts have in common."""

from __future__ import annotations

from typing import Any

import keras

from mtl_zoo._types import Shape


class TextEncoder(keras.layers.Layer):
    """From the vectors of tokens, (batch, length, dim), and which are real, (batch, length), to (batch, width)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    @property
    def width(self) -> int:
        """Width of the vector of a text."""
        raise NotImplementedError

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # the output has no tokens

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.width)
