from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing, check_by_loss
from mtl_zoo.balancing._registry import register_balancing

# `gamma^t` grows without bound where gamma is above 1.
LARGEST = 1e4


@register_balancing("scheduled")
class Scheduled(LossBalancing):
    """Scheduled weights: every weight grows or fades by a constant factor.

        w_k(t) = w_k(0) gamma_k^t,   t = floor(step / steps)

    The PLE paper counts t in epochs in one line and in steps in another. `steps` says how long one t lasts: 1 for a
    step, the number of batches for an epoch. The weights are not normalised, and are kept below 10,000.

    Args:
        initial: The weights at the start, as a dict of numbers >= 0 by loss name. None means 1 for all.
        gamma: The factors, as a dict of numbers above 0 by loss name. None means 1 for all, which keeps the weights as
            they are.
        steps: The number of training steps that one t lasts.
        name: The method's name in Keras.

    Raises:
        ValueError: If a number is out of its bounds; when the model is compiled, if a name is not a loss or a loss is
            missing.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import Scheduled
    >>> method = Scheduled(gamma={"click": 1.0, "conversion": 2.0})
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> [method.weigh(np.ones(2, "float32"), np.ones(2, "float32")).numpy().tolist() for _ in range(3)]
    [[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]]

    Reference: Tang et al., RecSys 2020, doi:10.1145/3383313.3412236, equation 10.
    """

    def __init__(
        self,
        initial: Mapping[str, float] | None = None,
        gamma: Mapping[str, float] | None = None,
        steps: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.initial = check_by_loss("initial", initial, minimum=0)
        self.gamma = check_by_loss("gamma", gamma, above=0)
        self.steps = check.check_int("steps", steps)

    def make_state(self, count: int) -> None:
        self.starts = self.by_loss("initial", self.initial, 1.0)
        self.factors = self.by_loss("gamma", self.gamma, 1.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        t = ops.floor(self.step / self.steps)
        grown = ops.convert_to_tensor(self.starts, "float32") * ops.power(
            ops.convert_to_tensor(self.factors, "float32"), t
        )
        return ops.minimum(grown, LARGEST)

    def get_config(self) -> Config:
        dicts = {"initial": self.initial, "gamma": self.gamma}
        dicts = {key: None if value is None else dict(value) for key, value in dicts.items()}
        return {**super().get_config(), **dicts, "steps": self.steps}
