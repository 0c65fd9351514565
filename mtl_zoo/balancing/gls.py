from __future__ import annotations

from keras import ops

from mtl_zoo._types import Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, LossBalancing
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("gls")
class GLS(LossBalancing):
    """GLS, geometric loss strategy: the geometric mean of the losses.

        L = (prod_k L_k)^(1/T),   dL = sum_k w_k dL_k,   w_k = L / (T L_k)

    Every loss contributes the same, `w_k L_k = L / T`, whatever its scale. The sum of the weights is not constant.
    Losses must be above 0, as those of the zoo are; one below 1e-8 counts as 1e-8.

    Args:
        name: The method's name in Keras.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import GLS
    >>> GLS().coefficients(np.array([1.0, 4.0], "float32"), np.ones(2, "float32")).numpy().round(4).tolist()
    [1.0, 0.25]

    Reference: Chennupati et al., CVPR workshops 2019, arXiv:1904.08492.
    """

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        logs = ops.log(ops.maximum(losses, SMALL_LOSS))
        count = ops.maximum(ops.sum(active), 1.0)
        mean = ops.sum(active * logs) / count
        return active * ops.exp(mean - logs) / count
