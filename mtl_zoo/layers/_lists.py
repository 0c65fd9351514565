"""Lists of vectors, (batch, length, dim), and booleans (batch, length): which are no padding."""

from __future__ import annotations

from keras import ops

from mtl_zoo._types import Tensor


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
