from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers.expert_bank import ExpertBank
from mtl_zoo.options import MLP


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FeatureMask(keras.layers.Layer):
    """Several learned masks over one vector, row by row: `a_k = sigmoid(relu([u; t_k] W1_k) W2_k)`, and `a_k * u`.

    The formula leaves biases out. `t_k` is what mask k reads beside `u`; without it the masks read `u` alone.

    Args:
        num_masks: The number of masks.
        units: The width of `u`.
        hidden_units: The width of the hidden layer of each mask.
        bias: Where the second layer's bias starts. Above 0 masks start nearer to 1, which passes `u` on.

    Input: u (batch, units), and optionally t (batch, num_masks, any width). Output: (batch, num_masks, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import FeatureMask
    >>> FeatureMask(3, units=4, hidden_units=2)(np.zeros((5, 4), "float32")).shape[1:]
    TensorShape([3, 4])

    Reference: Liu et al., CVPR 2019, arXiv:1803.10704.
    """

    def __init__(self, num_masks: int, units: int, hidden_units: int, bias: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_masks = check.check_count("num_masks", num_masks)
        self.units = check.check_int("units", units)
        self.hidden_units = check.check_int("hidden_units", hidden_units)
        self.bias = check.check_number("bias", bias)
        self.hidden = ExpertBank(num_masks, MLP((hidden_units,)), name="hidden", dtype=self.dtype_policy)
        self.second = ExpertBank(num_masks, MLP((units,), "sigmoid"), name="second", dtype=self.dtype_policy)

    def build(self, u_shape: Shape, t_shape: Shape | None = None) -> None:
        shape = tuple(u_shape) if t_shape is None else (u_shape[0], self.num_masks, u_shape[-1] + t_shape[-1])
        self.hidden.build(shape)
        self.second.build((u_shape[0], self.num_masks, self.hidden_units))
        self.second.biases[0].assign(ops.full((self.num_masks, self.units), self.bias))

    def masks(self, u: Tensor, t: Tensor | None = None) -> Tensor:
        """The masks `a_k`, (batch, num_masks, units)."""
        if t is not None:
            u = ops.concatenate([ops.repeat(u[:, None], self.num_masks, axis=1), t], axis=-1)
        return self.second(self.hidden(u))

    def call(self, u: Tensor, t: Tensor | None = None) -> Tensor:
        return self.masks(u, t) * u[:, None]

    def compute_output_shape(self, u_shape: Shape, t_shape: Shape | None = None) -> Shape:
        return (u_shape[0], self.num_masks, self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_masks": self.num_masks,
            "units": self.units,
            "hidden_units": self.hidden_units,
            "bias": self.bias,
        }
