from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import furthest, mean_of

RESCALES = (0, 1, 2)


@register_balancing("cagrad")
class CAGrad(GramBalancing):
    """CAGrad: near the mean gradient, the direction that is best for the task it helps least.

        max_d min_k g_k . d   subject to   ||d - g_0|| <= c ||g_0||,   g_0 = mean_k g_k

    which is `d = g_0 + c ||g_0|| g_w / ||g_w||` with `g_w = sum_k w_k g_k` and w the minimum of
    `g_w . g_0 + c ||g_0|| ||g_w||` over the simplex. `c = 0` is the mean and `c = 1` goes towards MGDA; for `c < 1` it
    still minimises the mean of the losses. The scale is that of the mean: to compare with the sum of the losses,
    multiply the learning rate by the number of tasks. Unless gradients conflict, the task that is helped least is that
    of the smallest gradient, so the method favours small gradients, though less than MGDA does. Where the mean is zero
    (opposed gradients of equal length) d is zero. It costs a backward pass for each task; the solution is exact, on
    every face of the simplex at once (up to 10 tasks; iterations with more).

    Args:
        c: How far d may be from the mean, relative to its norm; at most 1, since a larger ball would contain 0.
        rescale: What the step is: d with 0, `d / (1 + c^2)` with 1, `d / (1 + c)` with 2.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `c` is outside [0, 1], `rescale` is unknown, or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import CAGrad
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = CAGrad(c=0.4, rescale=0).coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [0.7, 0.5]

    Reference: Liu et al., NeurIPS 2021, arXiv:2110.14048.
    """

    def __init__(
        self,
        c: float = 0.4,
        rescale: int = 1,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.c = check.check_number("c", c, minimum=0, maximum=1)
        self.rescale = check.check_choice("rescale", rescale, RESCALES)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        gram, mean = ops.convert_to_tensor(gram), mean_of(active)
        products = ops.sum(gram * mean, axis=1)
        radius = self.c * ops.sqrt(ops.maximum(ops.sum(mean * products), 0.0))
        d = mean + furthest(gram, products, radius, active)
        return d / {0: 1.0, 1: 1.0 + self.c**2, 2: 1.0 + self.c}[self.rescale]

    def get_config(self) -> Config:
        return {**super().get_config(), "c": self.c, "rescale": self.rescale}
