from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, TINY, GradientBalancing
from mtl_zoo.balancing._registry import register_balancing

# A norm below this part of the longest counts as that.
SMALLEST_PART = 1e-8


@register_balancing("db_mtl")
class DualBalancing(GradientBalancing):
    """DB-MTL: gradients of the losses' logarithms, averaged over steps and scaled to the norm of the largest.

        y_k <- beta_t y_k + (1 - beta_t) g_k / L_k,  the gradient of log L_k;   beta_t = beta / t^decay
        c_k = max_j ||y_j|| / ||y_k||;   d = sum_k c_k y_k

    Multiplying one loss by a number changes nothing. The averages start at 0, as in the reference code, so that the
    first steps are small. Losses must be positive, and one below 1e-8 counts as 1e-8. The average of an inactive task
    does not change. Tables receive `sum_k c_k g_k / L_k` of the batch alone. The state takes T times the memory of the
    shared weights. The model `DBMTL` is something else.

    Args:
        beta: The share of an average that is kept at the first step, at least 0 and below 1. With 0 there are no
            averages.
        decay: How fast this share falls with the steps. With 0 it stays.
        name: The method's name in Keras.

    Raises:
        ValueError: If `beta` is outside [0, 1) or `decay` is below 0.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import DualBalancing
    >>> method = DualBalancing(beta=0.0)
    >>> method.sizes = (2,)
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gradients, losses = np.array([[1.0, 0.0], [-1.0, 1.0]], "float32"), np.array([1.0, 4.0], "float32")
    >>> direction, _ = method.direction(gradients, losses, np.ones(2, "float32"), (2,))
    >>> [round(float(x), 3) for x in direction]
    [0.293, 0.707]

    Reference: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, arXiv:2308.12029. Defaults are
    those of LibMTL.
    """

    keeps_gradients = True

    def __init__(self, beta: float = 0.9, decay: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.beta = check.check_number("beta", beta, minimum=0, below=1)
        self.decay = check.check_number("decay", decay, minimum=0)

    def make_state(self, count: int) -> None:
        self.averages = self.state("averages", (count, sum(self.sizes)), 0.0)

    def direction(
        self, gradients: Tensor, losses: Tensor, active: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        beta = self.beta / ops.power(ops.convert_to_tensor(self.step) + 1.0, self.decay)
        losses = ops.maximum(losses, SMALL_LOSS)
        averages = ops.convert_to_tensor(self.averages)
        averages = averages + (1 - beta) * active[:, None] * (gradients / losses[:, None] - averages)
        self.averages.assign(averages)
        norms = ops.sqrt(ops.sum(ops.square(averages), axis=1)) * active
        # A floor in parts of the longest, so that it is the same whatever the losses' units are.
        longest = ops.max(norms)
        scales = longest / ops.maximum(norms, SMALLEST_PART * longest + TINY) * active
        return ops.matmul(scales[None, :], averages)[0], scales / losses

    def get_config(self) -> Config:
        return {**super().get_config(), "beta": self.beta, "decay": self.decay}
