from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class SideVector(keras.layers.Layer):
    """Some features' vectors side by side: slices of a joined vector, or vectors of their own.

    Args:
        bounds: First column and the one behind the last, of each slice; None where vectors come one by one.

    Input: (batch, width) with `bounds`; else a list of (batch, width), or of (batch, length, width), whose mean over
    the steps that are not all 0 is taken. Output: (batch, sum of widths).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import SideVector
    >>> SideVector(bounds=[(0, 1), (2, 4)])(np.array([[1.0, 2.0, 3.0, 4.0]])).numpy().tolist()
    [[1.0, 3.0, 4.0]]
    """

    def __init__(self, bounds: Sequence[Sequence[int]] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.bounds = None if bounds is None else [tuple(pair) for pair in bounds]
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        if self.bounds is not None:
            parts = [inputs[:, start:stop] for start, stop in self.bounds]
        else:
            parts = [_mean_of_steps(part) if len(part.shape) == 3 else part for part in inputs]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        if self.bounds is not None:
            return (input_shape[0], sum(stop - start for start, stop in self.bounds))
        return (input_shape[0][0], sum(shape[-1] for shape in input_shape))

    def get_config(self) -> Config:
        return {**super().get_config(), "bounds": self.bounds}


def _mean_of_steps(steps: Tensor) -> Tensor:
    real = ops.cast(ops.any(ops.not_equal(steps, 0), axis=-1, keepdims=True), steps.dtype)
    return ops.sum(steps, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)
