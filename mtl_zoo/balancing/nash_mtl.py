from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import bargain, clip_length, mean_of, scaled


@register_balancing("nash_mtl")
class NashMTL(GramBalancing):
    """Nash-MTL: the tasks bargain for a direction, and agree on the one with the largest product of their gains.

        A c = 1 / c,  c > 0;   d = sum_k c_k g_k;   then ||d|| is cut to max_norm

    Before the cut `d . g_k = 1 / c_k` and `||d||^2` is the number of tasks, so any `max_norm` below the root of that
    number is the norm of every step. With two tasks `c_k = 1 / (||g_k|| sqrt(1 + cos))`. The direction does not depend
    on the scale of any task, so no task is favoured for the size of its loss, and `loss_weights` cannot favour one. The
    norm does not fall as training proceeds: shared weights need a falling learning rate, or an optimizer that scales.
    Opposed gradients (cosines near -1) have no solution, and the mean of the gradients, cut to the same norm, is taken
    instead. It costs a backward pass for each task; c is found by Newton's method on the convex
    `1/2 c' A c - sum_k log c_k`, and for two tasks in closed form.

    Args:
        max_norm: The largest `||d||` over all that is weighed. None leaves it as it is.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `max_norm` is not above 0 or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import NashMTL
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = NashMTL(max_norm=None).coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [1.848, 1.307]

    Reference: Navon et al., ICML 2022, arXiv:2202.01017.
    """

    def __init__(
        self, max_norm: float | None = 1.0, include_tables: bool = False, update_every: int = 1, name: str | None = None
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.max_norm = None if max_norm is None else check.check_number("max_norm", max_norm, above=0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        gram = ops.convert_to_tensor(gram)
        cosines, lengths, largest = scaled(gram, active)
        solution, solved = bargain(cosines, lengths)
        solution = ops.where(solved, solution / ops.sqrt(largest), mean_of(active)) * active
        return clip_length(solution, gram, self.max_norm)

    def get_config(self) -> Config:
        return {**super().get_config(), "max_norm": self.max_norm}
