from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers.expert_bank import ExpertBank
from mtl_zoo.options import Units


@keras.saving.register_keras_serializable(package="mtl_zoo")
class PairwiseL2(keras.regularizers.Regularizer):
    """How far the slices of a weight are from each other: `alpha sum_(a<b) ||w_a - w_b||^2`, along its first axis.

    With n slices and their mean `m` this is `alpha n sum_a ||w_a - m||^2`, which is how it is computed.

    Args:
        alpha: Factor of the penalty.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = check.check_number("alpha", alpha, minimum=0)

    def __call__(self, x: Tensor) -> Tensor:
        return self.alpha * x.shape[0] * ops.sum(ops.square(x - ops.mean(x, axis=0, keepdims=True)))

    def get_config(self) -> Config:
        return {"alpha": self.alpha}


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TiedBank(ExpertBank):
    """An `ExpertBank` whose experts are pulled towards each other: `alpha sum_(a<b) ||theta_a - theta_b||^2`.

    `theta_e` are the kernels and biases of expert e; weights of normalisations stay free. The penalty is a weight
    regulariser like Keras' own: part of the model's `losses`, in training and evaluation.

    Args:
        num_experts: How many experts.
        mlp: An `MLP`, or its layer widths.
        alpha: Factor of the penalty. 0 leaves the experts independent.
        kernel_initializer: Name or config of a Keras initializer; an object is copied with a new seed for each expert.

    Input: (batch, width), read by every expert, or (batch, experts, width), expert `e` reading row `e`.
    Output: (batch, experts, last width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import TiedBank
    >>> bank = TiedBank(2, (1,), alpha=0.5)
    >>> bank.build((None, 1))
    >>> _ = bank.kernels[0].assign(np.array([[[1.0]], [[4.0]]]))
    >>> [float(loss) for loss in bank.losses]
    [4.5, 0.0]
    """

    def __init__(
        self, num_experts: int, mlp: Units, alpha: float, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(num_experts, mlp, kernel_initializer, **kwargs)
        self.alpha = check.check_number("alpha", alpha, minimum=0)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.alpha:
            for variable in (*self.kernels, *self.biases):
                variable.regularizer = PairwiseL2(self.alpha)

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self.alpha}
