from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor

# What a piece may measure, so that neither it nor its inverse is rounded to 0 or has no bounds.
NARROWEST = float(np.finfo("float32").tiny)
WIDEST = 1 / NARROWEST


@keras.saving.register_keras_serializable(package="mtl_zoo")
class PiecewiseLinearEncoder(keras.layers.Layer):
    """Numbers as vectors that change linearly within each of a number's pieces.

    A number `x` whose boundaries are `b_0 < b_1 < ... < b_T` fills its T pieces one after the other, and is mapped to a
    vector by weights of its own:

        e_t = min(max((x - b_(t-1)) / (b_t - b_(t-1)), 0), 1)
        y   = W [x; e] + c

    So `y` is any function of `x` that is continuous and bends at the boundaries. The number itself stands beside its
    pieces, since what is linear in it is then learned at once and goes on outside of the boundaries; in the paper the
    first and the last piece go on instead, which makes a number far outside of the training table's range as large as
    its piece is narrow.

    Args:
        boundaries: The boundaries of each number, increasing, at least two of each.
        dim: Width of each number's vector.

    Raises:
        ValueError: If boundaries are fewer than two, do not increase or are not finite.

    Input: (batch, numbers). Output: (batch, numbers, dim).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import PiecewiseLinearEncoder
    >>> encoder = PiecewiseLinearEncoder([(0.0, 1.0, 5.0), (-1.0, 1.0)], dim=4)
    >>> tuple(encoder(np.array([[3.0, 0.5]], "float32")).shape)
    (1, 2, 4)
    >>> np.asarray(encoder.pieces(np.array([[3.0, 0.5]], "float32"))).tolist()
    [[[1.0, 0.5], [0.75, 0.0]]]

    Reference: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
    NeurIPS 2022, arXiv:2203.05556.
    """

    def __init__(self, boundaries: Sequence[Sequence[float]], dim: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.boundaries = tuple(check_boundaries(one) for one in boundaries)
        self.dim = check.check_int("dim", dim, maximum=check.MAX_UNITS)
        # A number with fewer pieces than others has pieces that stay empty behind its own.
        widest = max(len(one) for one in self.boundaries) - 1
        self._starts = np.zeros((len(self.boundaries), widest), "float32")
        self._scales = np.zeros_like(self._starts)
        for i, one in enumerate(self.boundaries):
            edges = np.array(one, "float32")
            self._starts[i, : len(one) - 1] = edges[:-1]
            self._scales[i, : len(one) - 1] = 1.0 / np.diff(edges)

    def build(self, input_shape: Shape) -> None:
        numbers, pieces = self._starts.shape
        limit = (1 + pieces) ** -0.5
        start = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight((numbers, 1 + pieces, self.dim), start, name="kernel")
        self.bias = self.add_weight((numbers, self.dim), "zeros", name="bias")

    def pieces(self, numbers: Tensor) -> Tensor:
        """How full each piece is: (batch, numbers, most pieces of a number), from 0 to 1."""
        x = ops.cast(numbers, "float32")[..., None]
        return ops.clip((x - self._starts) * self._scales, 0.0, 1.0)

    def call(self, numbers: Tensor) -> Tensor:
        x = ops.cast(numbers, "float32")[..., None]
        v = ops.cast(ops.concatenate([x, self.pieces(numbers)], axis=-1), self.compute_dtype)
        return ops.einsum("bnv,nvd->bnd", v, self.kernel) + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], len(self.boundaries), self.dim)

    def get_config(self) -> Config:
        return {**super().get_config(), "boundaries": [list(one) for one in self.boundaries], "dim": self.dim}


def check_boundaries(given: Sequence[float]) -> tuple[float, ...]:
    """At least two finite numbers of 32 bits, each larger than the one before by what has an inverse of 32 bits."""
    found = tuple(float(one) for one in given)
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.array(found, "float32")
        widths = np.diff(edges)
    if len(found) < 2 or not np.isfinite(edges).all() or not ((widths >= NARROWEST) & (widths <= WIDEST)).all():
        raise ValueError(
            "`boundaries` must be two or more finite numbers of 32 bits, increasing, each by "
            f"{NARROWEST:.1e} to {WIDEST:.1e}. Received: boundaries={found}"
        )
    return found
