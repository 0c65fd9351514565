from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _gradients
from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class GateUnit(keras.layers.Layer):
    """Gates in (0, 2) for the units of a vector: `2 sigmoid(relu([prior, sg(x)] W + b) W' + b')`.

    `W'` and `b'` start as zeros, so that every gate starts at 1 and changes nothing. No gradient goes into `x` (`sg`),
    but the prior gets one.

    Args:
        units: The width of the vector that is gated.
        hidden_units: The width of the hidden layer.
        parts: The number of such gates that one hidden layer makes, one for each task.

    Input: prior (batch, any width) and x (batch, any width). Output: a list of `parts` tensors (batch, units).

    Reference: GateNU of Chang et al., KDD 2023, arXiv:2302.01115, from a secondary source; the zeros are ours.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import GateUnit
    >>> (gate,) = GateUnit(3)(np.ones((1, 2)), np.ones((1, 5)))
    >>> gate.numpy().tolist()
    [[1.0, 1.0, 1.0]]
    """

    def __init__(self, units: int, hidden_units: int = 64, parts: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units)
        self.hidden_units = check.check_int("hidden_units", hidden_units)
        self.parts = check.check_int("parts", parts)
        options = {"dtype": self.dtype_policy}
        self.hidden = keras.layers.Dense(self.hidden_units, "relu", name="hidden", **options)
        self.gates = keras.layers.Dense(
            self.parts * self.units, "sigmoid", kernel_initializer="zeros", name="gates", **options
        )

    def build(self, prior_shape: Shape, inputs_shape: Shape) -> None:
        self.hidden.build((None, prior_shape[-1] + inputs_shape[-1]))
        self.gates.build((None, self.hidden_units))

    def call(self, prior: Tensor, inputs: Tensor) -> list[Tensor]:
        gates = 2 * self.gates(self.hidden(ops.concatenate([prior, _gradients.stop_gradient(inputs)], axis=-1)))
        return ops.split(gates, self.parts, axis=-1)

    def compute_output_shape(self, prior_shape: Shape, inputs_shape: Shape) -> list[Shape]:
        return [(inputs_shape[0], self.units)] * self.parts

    def get_config(self) -> Config:
        config = {"units": self.units, "hidden_units": self.hidden_units, "parts": self.parts}
        return {**super().get_config(), **config}
