from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Shape, Tensor
from mtl_zoo.layers.funnel_product import FunnelProduct

_KINDS = ("add", "multiply")


@keras.saving.register_keras_serializable(package="mtl_zoo")
class BiasedLogit(keras.layers.Layer):
    """A logit `a` with what only training knows, as another logit `b`.

        a + b                                              `"add"`
        logit of sigmoid(a) sigmoid(b), in training        `"multiply"`
        a, outside of training

    Args:
        how: `"add"` or `"multiply"`.

    Input: two tensors of one shape. Output: that shape, float32.

    Raises:
        ValueError: `how` is another.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import BiasedLogit
    >>> a, b = np.array([[1.0]], "float32"), np.array([[0.5]], "float32")
    >>> float(BiasedLogit("add")(a, b)[0, 0]), float(BiasedLogit("multiply")(a, b)[0, 0])
    (1.5, 1.0)
    """

    def __init__(self, how: str, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.how = check.check_choice("how", how, _KINDS)
        self._product = FunnelProduct(name="product")
        self.built = True

    def call(self, logit: Tensor, bias: Tensor, training: bool | None = None) -> Tensor:
        logit, bias = ops.cast(logit, "float32"), ops.cast(bias, "float32")
        if self.how == "add":
            return logit + bias
        return self._product(logit, bias) if training else logit

    def compute_output_shape(self, logit_shape: Shape, bias_shape: Shape) -> Shape:
        return tuple(logit_shape)

    def compute_output_spec(self, logit: Tensor, bias: Tensor, training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(logit.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "how": self.how}
