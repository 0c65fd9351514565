from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import TINY, GradientBalancing
from mtl_zoo.balancing._registry import register_balancing

# Only against 0 / 0: a larger one would count against tasks whose gradients are small throughout.
SMALLEST_SQUARE = 1e-30


@register_balancing("excess_mtl")
class ExcessMTL(GradientBalancing):
    """ExcessMTL: weights grow with an estimate of a task's excess risk, its loss above the lowest it could reach.

        S_k <- S_k + g_k^2;   E_k = g_k^T diag(S_k)^(-1/2) g_k
        w_k <- w_k exp(learning_rate * E_k / E_k(1));   w_k <- T w_k / sum_j w_j;   d = sum_k w_k g_k

    A task whose labels are noisy has a high loss but, once learned, little excess. The first step of a task records
    `E_k(1)` and does not change its weight. The state takes T times the memory of the shared weights.

    Args:
        learning_rate: Learning rate of the weights.
        name: The method's name in Keras.

    Raises:
        ValueError: If `learning_rate` is not above 0.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import ExcessMTL
    >>> method = ExcessMTL()
    >>> method.sizes = (2,)
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gradients, ones = np.array([[1.0, 0.0], [-1.0, 1.0]], "float32"), np.ones(2, "float32")
    >>> method.direction(gradients, ones, ones, (2,))[0].numpy().tolist()
    [0.0, 1.0]
    >>> [round(float(x), 3) for x in method.first_excess.numpy()]
    [1.0, 2.0]

    Reference: He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024, arXiv:2402.02009. The
    authors add 1e-7 to `S_k`.
    """

    keeps_gradients = True

    def __init__(self, learning_rate: float = 0.01, name: str | None = None) -> None:
        super().__init__(name)
        self.learning_rate = check.check_number("learning_rate", learning_rate, above=0)

    def make_state(self, count: int) -> None:
        self.squares = self.state("squares", (count, sum(self.sizes)), 0.0)
        self.weights_now = self.state("weights_now", (count,), 1.0)
        self.first_excess = self.state("first_excess", (count,), 0.0)

    def direction(
        self, gradients: Tensor, losses: Tensor, active: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        squared = ops.square(gradients)
        squares = ops.convert_to_tensor(self.squares) + squared
        self.squares.assign(squares)
        excess = ops.sum(squared / ops.sqrt(squares + SMALLEST_SQUARE), axis=1)
        first, weights = ops.convert_to_tensor(self.first_excess), ops.convert_to_tensor(self.weights_now)
        growth = ops.where(first > 0, excess / ops.maximum(first, TINY), 0.0) * active
        self.first_excess.assign(ops.where(ops.logical_and(active > 0, first == 0), excess, first))
        # Less the largest: the sum that follows makes no difference of it, and nothing overflows.
        grown = weights * ops.exp(self.learning_rate * (growth - ops.max(growth)))
        weights = grown * len(self.loss_names) / ops.sum(grown)
        self.weights_now.assign(weights)
        return ops.matmul(weights[None, :], gradients)[0], weights

    def get_config(self) -> Config:
        return {**super().get_config(), "learning_rate": self.learning_rate}
