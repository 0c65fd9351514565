from __future__ import annotations

import numpy as np
from keras import ops

from mtl_zoo._types import Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import RIDGE, SMALLEST, mean_of, scaled

# Where the coefficients, before they are made to sum to 1, cancel to less than this share, there is no solution.
LEAST_SUM = 0.01


@register_balancing("imtl_g")
class IMTLG(GramBalancing):
    """IMTL-G: the combination of the gradients that has the same projection on each of them.

        sum_k c_k = 1,   d . g_k / ||g_k|| the same for all k,   d = sum_k c_k g_k

    With C the cosines of the gradients, `c_k` is proportional to `(C^-1 1)_k / ||g_k||`. With two tasks
    `c = (||g_2||, ||g_1||) / (||g_1|| + ||g_2||)`. The method removes the scales of losses and gradients. The
    coefficients sum to 1, so the result is a mean. With three tasks or more they may be negative, where one gradient
    lies nearly in the cone of others. Where they cancel (their sum is below 0.01 of that of their absolute values)
    there is no solution, or one along which losses rise, and the mean of the gradients is taken instead. Opposed
    gradients give `d = 0`. It costs a backward pass for each task and the solution of one linear system.

    Args:
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import IMTLG
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = IMTLG().coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [0.586, 0.414]

    Reference: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021.
    """

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        cosines, lengths, _ = scaled(gram, active)
        # Equal gradients make C singular; with the ridge they share what one of them would get.
        ridge = RIDGE * np.eye(cosines.shape[0], dtype="float32")
        shares = active * ops.solve(cosines + ridge, active) / lengths
        total = ops.sum(shares)
        solved = total > LEAST_SUM * ops.sum(ops.abs(shares))
        return ops.where(solved, shares / ops.maximum(total, SMALLEST), mean_of(active))
