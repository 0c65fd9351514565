from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import bargain, clip_length, mean_of, scaled


@register_balancing("fair_grad")
class FairGrad(GramBalancing):
    """FairGrad: the direction of the fairest gains, by a measure of fairness from resource allocation.

        A c = c^(-1/alpha),  c > 0;   d = sum_k c_k g_k;   then ||d|| is cut to max_norm

    The gains `d . g_k = c_k^(-1/alpha)` maximise `sum_k gain_k^(1 - alpha) / (1 - alpha)`. `alpha = 1` is Nash-MTL,
    whose direction does not depend on the scale of any task. Near 0 it goes towards the sum of the gradients, which
    serves the largest; the larger alpha is, the more weight has the task that gains least, as in MGDA. Opposed
    gradients (cosines near -1) have no solution, and the mean of the gradients, cut to the same norm, is taken instead.
    It costs a backward pass for each task; c is found by Newton's method on a convex function.

    Args:
        alpha: The measure of fairness, from 0.1 to 20. The authors' code has 1; since that is `nash_mtl`, the default
            here is 2.
        max_norm: The largest `||d||` over all that is weighed. None leaves it as it is.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `alpha` is outside [0.1, 20], `max_norm` is not above 0, or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import FairGrad
    >>> gram = np.array([[1.0, 0.0], [0.0, 4.0]], "float32")
    >>> c = FairGrad(alpha=2, max_norm=None).coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [1.0, 0.397]

    Reference: Ban and Ji, ICML 2024, arXiv:2402.15638.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        max_norm: float | None = 1.0,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.alpha = check.check_number("alpha", alpha, minimum=0.1, maximum=20)
        self.max_norm = None if max_norm is None else check.check_number("max_norm", max_norm, above=0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        gram = ops.convert_to_tensor(gram)
        cosines, lengths, largest = scaled(gram, active)
        power = 1.0 / self.alpha
        solution, solved = bargain(cosines, lengths, power)
        # What the longest gradient's length, which was divided out, does to the solution.
        solution = ops.where(solved, solution * largest ** (-1.0 / (1.0 + power)), mean_of(active)) * active
        return clip_length(solution, gram, self.max_norm)

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self.alpha, "max_norm": self.max_norm}
