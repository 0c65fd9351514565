from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LayerMixture(keras.layers.Layer):
    """A learned sum of the layers of each column: `y_k = sum_l beta_kl x_k^l`.

    Args:
        last_layer: Where beta starts for the last layer; the layers below share the rest evenly. With 1 the sum starts
            as the last layer alone. If there is only one layer, its beta starts at 1.

    Input: a list of L tensors (batch, columns, units). Output: one tensor of that shape.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import LayerMixture
    >>> layers = [np.full((1, 1, 2), 10.0, "float32"), np.full((1, 1, 2), 20.0, "float32")]
    >>> LayerMixture(last_layer=0.5)(layers).numpy().tolist()
    [[[15.0, 15.0]]]

    Reference: Ruder et al., AAAI 2019, arXiv:1705.08142.
    """

    def __init__(self, last_layer: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.last_layer = check.check_number("last_layer", last_layer)

    def build(self, input_shape: Sequence[Shape]) -> None:
        layers, columns = len(input_shape), input_shape[0][1]
        start = [(1 - self.last_layer) / max(layers - 1, 1)] * (layers - 1) + [self.last_layer if layers > 1 else 1.0]

        def initializer(shape: Shape, dtype: Any = None) -> Tensor:
            return ops.broadcast_to(ops.convert_to_tensor([start], dtype=dtype), shape)

        self.beta = self.add_weight(shape=(columns, layers), initializer=initializer, name="beta")

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        beta = ops.cast(self.beta, inputs[0].dtype)
        return sum(beta[None, :, i, None] * x for i, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> Config:
        return {**super().get_config(), "last_layer": self.last_layer}
