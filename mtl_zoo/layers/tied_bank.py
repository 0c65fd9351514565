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
    """Penalises the distance between slices of a weight along its first axis: `alpha sum_(a<b) ||w_a - w_b||^2`.

    With n slices and their mean `m` this equals `alpha n sum_a ||w_a - m||^2`, which is what is computed.

    Args:
        alpha: The factor of the penalty.
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

    `theta_e` are the kernels and biases of expert e; the weights of normalisations are left free. The penalty is a
    weight regulariser like Keras' own: it is part of the model's `losses`, in training and in evaluation.

    Args:
        num_experts: The number of experts.
        mlp: An `MLP`, or its layer widths.
        alpha: The factor of the penalty. 0 leaves the experts independent.
        kernel_initializer: A Keras initializer, or the name or config of one. Every expert gets a copy with a new seed.

    Input: (batch, width), which every expert reads, or (batch, experts, width), of which expert `e` reads row `e`.
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
