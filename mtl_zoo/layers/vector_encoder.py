from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class VectorEncoder(keras.layers.Layer):
    """A vector and whether it is missing, side by side and through an encoder: `y = f([x; m])`.

    Args:
        encoder: The layer `f`, from (batch, dim), or (batch, dim + 1) with an indicator, to (batch, any width).
            Default: None, `y = [x; m]`.

    Input: x (batch, dim), or a dict of x and m (batch,), the one whose name ends in `.missing`. Output: (batch, width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import VectorEncoder
    >>> inputs = {"title": np.array([[0.5, 2.0], [0.0, 0.0]], "float32"), "title.missing": np.array([0, 1], "float32")}
    >>> VectorEncoder()(inputs).numpy().tolist()
    [[0.5, 2.0, 0.0], [0.0, 0.0, 1.0]]
    """

    def __init__(self, encoder: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape: Any) -> None:
        if self.encoder is not None and not self.encoder.built:
            self.encoder.build(self._joined_shape(input_shape))

    def call(self, inputs: Any) -> Tensor:
        x, missing = with_indicator(inputs)
        x = ops.cast(x, self.compute_dtype)
        if missing is not None:
            x = ops.concatenate([x, ops.cast(missing, x.dtype)[:, None]], axis=-1)
        return x if self.encoder is None else self.encoder(x)

    def _joined_shape(self, input_shape: Any) -> Shape:
        x, missing = with_indicator(input_shape)
        return (*x[:-1], x[-1] + (missing is not None))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        joined = self._joined_shape(input_shape)
        return joined if self.encoder is None else tuple(self.encoder.compute_output_shape(joined))

    def get_config(self) -> Config:
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config: Config) -> VectorEncoder:
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})


def with_indicator(inputs: Any) -> tuple[Any, Any]:
    """What stands for a feature's value, and its `.missing` input or None, of a dict by name or of the value alone."""
    if not isinstance(inputs, dict):
        return inputs, None
    missing = next((name for name in inputs if name.endswith(".missing")), None)
    (value,) = (x for name, x in inputs.items() if name != missing)
    return value, None if missing is None else inputs[missing]
