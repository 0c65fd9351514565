from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class PeriodicEncoder(keras.layers.Layer):
    """Numbers as vectors of waves whose frequencies are trained.

    With `x` a standardised number and `f_1 ... f_k` its frequencies, drawn from N(0, scale^2):

        v = [x; sin(2 pi f_1 x); ...; sin(2 pi f_k x); cos(2 pi f_1 x); ...; cos(2 pi f_k x)]
        y = relu(W v + c)

    The number itself stands beside its waves, so that a trend goes on outside of the training table's range; the paper
    has the waves alone.

    Args:
        numbers: How many numbers there are. Each has frequencies and weights of its own.
        dim: Width of each number's vector.
        frequencies: Frequencies of each number, k.
        scale: Standard deviation of the frequencies at the start, in periods a standard deviation of the number. A
            larger one makes the vector of near values differ more.

    Raises:
        ValueError: If a count is below 1, or `scale` is not above 0.

    Input: (batch, numbers). Output: (batch, numbers, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import PeriodicEncoder
    >>> tuple(PeriodicEncoder(numbers=2, dim=4)(np.array([[3.0, 0.5]], "float32")).shape)
    (1, 2, 4)

    Reference: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
    NeurIPS 2022, arXiv:2203.05556.
    """

    def __init__(self, numbers: int, dim: int = 16, frequencies: int = 16, scale: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.numbers = check.check_count("numbers", numbers)
        self.dim = check.check_int("dim", dim, maximum=check.MAX_UNITS)
        self.frequencies = check.check_int("frequencies", frequencies, maximum=check.MAX_UNITS)
        self.scale = check.check_number("scale", scale, above=0)

    def build(self, input_shape: Shape) -> None:
        drawn = keras.initializers.RandomNormal(0.0, self.scale)
        self.frequency = self.add_weight((self.numbers, self.frequencies), drawn, name="frequency")
        width = 1 + 2 * self.frequencies
        start = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        self.kernel = self.add_weight((self.numbers, width, self.dim), start, name="kernel")
        self.bias = self.add_weight((self.numbers, self.dim), "zeros", name="bias")

    def call(self, numbers: Tensor) -> Tensor:
        x = ops.cast(numbers, "float32")[..., None]
        angles = 2 * math.pi * x * ops.cast(self.frequency, "float32")
        v = ops.cast(ops.concatenate([x, ops.sin(angles), ops.cos(angles)], axis=-1), self.compute_dtype)
        return ops.relu(ops.einsum("bnv,nvd->bnd", v, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.numbers, self.dim)

    def get_config(self) -> Config:
        own = {"numbers": self.numbers, "dim": self.dim, "frequencies": self.frequencies, "scale": self.scale}
        return {**super().get_config(), **own}
