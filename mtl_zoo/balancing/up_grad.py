from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import mean_of, project_on_dual_cone, scaled

REDUCTIONS = ("mean", "sum")


@register_balancing("up_grad")
class UPGrad(GramBalancing):
    """UPGrad: each task's gradient is projected to the nearest direction without conflicts, and these are averaged.

        p_i = argmin ||p - g_i||  over  p . g_k >= 0 for all k;   d = mean_i p_i

    so that `d . g_k >= 0` for every task. With two tasks this is half of PCGrad's sum; with more, the `p_i` of PCGrad
    may conflict again. Without conflicts d is the plain mean: the method changes directions and not scales, and the
    longest gradient still counts most. Opposed gradients project each other to zero. It costs a backward pass for each
    task; the projections are exact, on every face of the cone at once (up to 10 tasks; iterations with more).

    Args:
        reduction: How the `p_i` are combined: `"mean"`, as in the paper, or `"sum"`, which has the scale of the sum of
            the losses.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `reduction` is unknown or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import UPGrad
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = UPGrad().coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [1.0, 0.75]

    Reference: Quinton and Rey, 2024, arXiv:2406.16232.
    """

    def __init__(
        self, reduction: str = "mean", include_tables: bool = False, update_every: int = 1, name: str | None = None
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.reduction = check.check_choice("reduction", reduction, REDUCTIONS)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        cosines, lengths, _ = scaled(gram, active)
        weights = mean_of(active) if self.reduction == "mean" else active
        steps = project_on_dual_cone(cosines)
        return weights + ops.sum(steps * (weights * lengths)[:, None], axis=0) / lengths

    def get_config(self) -> Config:
        return {**super().get_config(), "reduction": self.reduction}
