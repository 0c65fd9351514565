from __future__ import annotations

import keras

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing, masked_softmax
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("rlw")
class RLW(LossBalancing):
    """RLW, random loss weighting: new random weights at every step.

        w = softmax(z),   z ~ N(0, I)

    The weights sum to 1 over the active losses, and are 1/T on average, so compared with the plain sum the learning
    rate is divided by T. All replicas draw the same numbers, and training that was stopped and resumed goes on with
    those that would have come.

    Args:
        seed: Seed of the random weights.
        name: The method's name in Keras.

    Raises:
        ValueError: If `seed` is below 0.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import RLW
    >>> method = RLW(seed=3)
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> w = method.weigh(np.ones(2, "float32"), np.ones(2, "float32"))
    >>> round(float(w[0] + w[1]), 4)
    1.0

    Reference: Lin et al., TMLR 2022, arXiv:2111.10603.
    """

    def __init__(self, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.seed = check.check_int("seed", seed, minimum=0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        return masked_softmax(keras.random.normal(active.shape, seed=self.step_seed(self.seed)), active)

    def get_config(self) -> Config:
        return {**super().get_config(), "seed": self.seed}
