from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers.vector_encoder import with_indicator


@keras.saving.register_keras_serializable(package="mtl_zoo")
class ImageEncoder(keras.layers.Layer):
    """A picture through an encoder, and beside it whether it is missing: `y = [f(x / 255); m]`.

    Of an encoder that gives a map, (batch, height, width, channels), the mean over places is taken.

    Args:
        encoder: The layer `f`, for pictures (batch, height, width, 3) of numbers from 0 to 1.

    Input: x (batch, height, width, 3) uint8, or a dict of x and m (batch,), the one whose name ends in `.missing`.
    Output: (batch, width of the encoder), and 1 more with an indicator.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import ImageCNN, ImageEncoder
    >>> inputs = {"poster": np.zeros((2, 8, 8, 3), "uint8"), "poster.missing": np.array([0, 1], "float32")}
    >>> ImageEncoder(ImageCNN(4))(inputs).shape[1:]
    TensorShape([5])
    """

    def __init__(self, encoder: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape: Any) -> None:
        if not self.encoder.built:
            self.encoder.build(with_indicator(input_shape)[0])

    def call(self, inputs: Any) -> Tensor:
        x, missing = with_indicator(inputs)
        y = self.encoder(ops.cast(x, self.compute_dtype) / 255.0)
        if len(y.shape) == 4:
            y = ops.mean(y, axis=(1, 2))
        y = ops.cast(y, self.compute_dtype)
        return y if missing is None else ops.concatenate([y, ops.cast(missing, y.dtype)[:, None]], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        x, missing = with_indicator(input_shape)
        return (x[0], self.encoder.compute_output_shape(x)[-1] + (missing is not None))

    def get_config(self) -> Config:
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config: Config) -> ImageEncoder:
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})
