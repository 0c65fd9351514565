from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, TINY, GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import min_norm

NORMALIZATIONS = (None, "l2", "loss", "loss+")


@register_balancing("mgda")
class MGDA(GramBalancing):
    """MGDA: the shortest vector in the convex hull of the tasks' gradients, along which no loss rises.

        lambda = argmin over the simplex of || sum_k lambda_k g_k ||^2;   d = sum_k lambda_k g_k

    At the solution `d . g_k = ||d||^2` where `lambda_k > 0`, and not less elsewhere. The coefficients sum to 1, so the
    result is a mean: to compare with the sum of the losses, multiply the learning rate by the number of tasks.
    Orthogonal gradients get coefficients proportional to `1 / ||g_k||^2`: the method favours the task with the smallest
    gradient, and takes small steps with many tasks. `normalization` first divides the gradients by their norm ("l2"),
    their loss ("loss") or both ("loss+"). Opposed gradients give `d = 0`, since no direction helps all tasks. It costs
    a backward pass for each task; the solution is exact, on every face of the simplex at once (up to 10 tasks;
    iterations with more).

    Args:
        normalization: What the gradients are divided by first: `"l2"`, `"loss"`, `"loss+"`, or None for nothing. d is a
            combination of the divided gradients.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `normalization` is unknown or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import MGDA
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = MGDA().coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [0.6, 0.4]

    Reference: Desideri, Comptes Rendus Mathematique 350, 2012; Sener and Koltun, NeurIPS 2018, arXiv:1810.04650.
    """

    def __init__(
        self,
        normalization: str | None = None,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.normalization = check.check_choice("normalization", normalization, NORMALIZATIONS)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        gram = ops.convert_to_tensor(gram)
        divisor = ops.ones_like(active)
        if self.normalization in ("l2", "loss+"):
            divisor = divisor * ops.sqrt(ops.maximum(ops.diagonal(gram), TINY))
        if self.normalization in ("loss", "loss+"):
            divisor = divisor * ops.maximum(losses, SMALL_LOSS)
        divisor = ops.where(active > 0, divisor, 1.0)
        return min_norm(gram / (divisor[:, None] * divisor[None, :]), active) / divisor

    def get_config(self) -> Config:
        return {**super().get_config(), "normalization": self.normalization}
