from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import bargain, clip_length, mean_of, scaled


@register_balancing("fair_grad")
class FairGrad(GramBalancing):
    """FairGrad: the direction of the fairest gains, for one of the measures of fairness of resource allocation.

        A c = c^(-1/alpha),  c > 0;   d = sum_k c_k g_k;   then ||d|| is cut to max_norm

    The gains `d . g_k = c_k^(-1/alpha)` maximise `sum_k gain_k^(1 - alpha) / (1 - alpha)`. `alpha = 1` is Nash-MTL,
    whose direction no task's scale changes; near 0 it goes towards the sum of the gradients, which serves the largest;
    the larger alpha, the more it cares for the task that gains least, as MGDA does. Opposed gradients (cosines near -1)
    have no solution, and the mean of the gradients, cut too, is taken instead. A backward pass for each task; c by
    Newton's method on a convex function.

    Args:
        alpha: Above 0. The authors' code has 1; since that is `nash_mtl`, this one starts at 2.
        max_norm: The most that `||d||` may be over all that is weighed; None does not cut.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: New coefficients every so many steps.
        name: Keras name.

    Raises:
        ValueError: `alpha` outside [0.1, 20], `max_norm` that is not above 0, `update_every` below 1.

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
        found, solved = bargain(cosines, lengths, power)
        # What the longest gradient's length, which was divided out, does to the solution.
        found = ops.where(solved, found * largest ** (-1.0 / (1.0 + power)), mean_of(active)) * active
        return clip_length(found, gram, self.max_norm)

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self.alpha, "max_norm": self.max_norm}
