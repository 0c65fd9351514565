from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing
from mtl_zoo.balancing._registry import register_balancing

BOUND = 6.0


@register_balancing("imtl_l")
class IMTLL(LossBalancing):
    """IMTL-L: a learned factor brings every loss to the scale of 1.

        sum_k exp(s_k) L_k - s_k,   weight exp(s_k)

    `s_k` is learned beside the model by plain gradient descent on the same objective. At its optimum
    `exp(s_k) L_k = 1`, so the weighted losses sum to T; up to a factor of 2 this is uncertainty weighting at its own
    optimum. `s_k` is kept in [-6, 6]. The other half of the method, which acts on gradients, is IMTL-G.

    Args:
        learning_rate: Learning rate of the `s_k`, which have no weight decay.
        initial: Where the `s_k` start.
        name: The method's name in Keras.

    Raises:
        ValueError: If `learning_rate` is not above 0 or `initial` is outside [-6, 6].

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import IMTLL
    >>> method = IMTLL(learning_rate=0.5)
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> for _ in range(100):
    ...     w = method.weigh(np.array([0.5, 2.0], "float32"), np.ones(2, "float32"))
    >>> w.numpy().round(3).tolist()
    [2.0, 0.5]

    Reference: Liu et al., ICLR 2021, "Towards Impartial Multi-task Learning".
    """

    def __init__(self, learning_rate: float = 0.025, initial: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.learning_rate = check.check_number("learning_rate", learning_rate, above=0)
        self.initial = check.check_number("initial", initial, minimum=-BOUND, maximum=BOUND)

    def make_state(self, count: int) -> None:
        self.log_factors = self.state("log_factors", (count,), self.initial)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        s = ops.convert_to_tensor(self.log_factors)
        weights = ops.exp(s)
        slope = weights * losses - 1.0
        self.log_factors.assign(ops.clip(s - self.learning_rate * slope * active, -BOUND, BOUND))
        return weights

    def get_config(self) -> Config:
        return {**super().get_config(), "learning_rate": self.learning_rate, "initial": self.initial}
