from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class ImageCNN(keras.layers.Layer):
    """A small network for pictures: 3 x 3 convolutions that halve them, the mean over places, a linear map.

        h_0 = x;  h_l = relu(conv(h_{l-1}, 3 x 3, stride 2) + b_l);  y = mean over places of h_L, W + b

    Args:
        units: Width of `y`.
        filters: Channels of each convolution.

    Input: (batch, height, width, channels), numbers from 0 to 1. Output: (batch, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import ImageCNN
    >>> ImageCNN(8)(np.zeros((2, 48, 32, 3), "float32")).shape[1:]
    TensorShape([8])

    Reference: LeCun et al., Proceedings of the IEEE 86(11), 1998, doi:10.1109/5.726791; the mean over places is of Lin
    et al., arXiv:1312.4400.
    """

    def __init__(self, units: int = 32, filters: Sequence[int] = (16, 32, 64), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units, maximum=check.MAX_UNITS)
        self.filters = check.check_units("filters", filters)
        self.convolutions = [
            keras.layers.Conv2D(
                channels,
                3,
                strides=2,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                data_format="channels_last",
                name=f"convolution_{i}",
                dtype=self.dtype_policy,
            )
            for i, channels in enumerate(self.filters)
        ]
        self.linear = keras.layers.Dense(units, name="linear", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
        self.linear.build((shape[0], shape[-1]))

    def call(self, x: Tensor) -> Tensor:
        # One row more, since without rows TensorFlow's convolution by oneDNN (2.21) gives another shape.
        x = ops.pad(x, ((0, 1), (0, 0), (0, 0), (0, 0)))
        for convolution in self.convolutions:
            x = convolution(x)
        return self.linear(ops.mean(x, axis=(1, 2))[:-1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.units)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units, "filters": list(self.filters)}
