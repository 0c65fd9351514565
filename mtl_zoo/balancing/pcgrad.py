from __future__ import annotations

import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import mean_of, reorder, scaled, shuffled_order

REDUCTIONS = ("sum", "mean")


@register_balancing("pcgrad")
class PCGrad(GramBalancing):
    """PCGrad: each task's gradient loses the component that points against another task's gradient.

        p_i = g_i;  for j != i in random order: if p_i . g_j < 0:  p_i = p_i - (p_i . g_j) / ||g_j||^2 g_j
        d = sum_i p_i

    The `g_j` are the original gradients. Everything is linear in the gradients, so only their products are needed. One
    random order serves all i of a step, where the paper draws one for each; the mean of d is the same. With two tasks
    the order does not matter. Without conflicts d is the plain sum: the method changes directions, and not differences
    in the gradients' norms. With three tasks or more, `p_i` may conflict again with a task that came earlier in the
    order (with `up_grad` it does not). It costs a backward pass for each task; the solution takes a few operations for
    each.

    Args:
        reduction: How the `p_i` are combined: `"sum"`, as in the paper, or `"mean"`.
        shuffle: Whether every step has a new random order, the same on all replicas. With False the order is that of
            the losses.
        seed: Seed of the random orders.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `reduction` is unknown, `seed` is negative, or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import PCGrad
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = PCGrad().coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [2.0, 1.5]

    Reference: Yu et al., NeurIPS 2020, arXiv:2001.06782.
    """

    def __init__(
        self,
        reduction: str = "sum",
        shuffle: bool = True,
        seed: int = 0,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.reduction = check.check_choice("reduction", reduction, REDUCTIONS)
        self.shuffle = bool(shuffle)
        self.seed = check.check_int("seed", seed, minimum=0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        cosines, lengths, _ = scaled(gram, active)
        count = cosines.shape[0]
        shuffle = self.shuffle and count > 2
        if shuffle:
            order, back = shuffled_order(count, self.step_seed(self.seed))
            cosines = reorder(cosines, order)
        # Row i: p_i / ||g_i|| as a combination of the directions u_m = g_m / ||g_m||.
        eye = np.eye(count, dtype="float32")
        parts = ops.convert_to_tensor(eye)
        for j in range(count):
            products = ops.sum(parts * cosines[j], axis=1, keepdims=True)
            parts = parts - ops.minimum(products, 0.0) * ((1 - eye[:, j : j + 1]) * eye[j])
        if shuffle:
            parts = reorder(parts, back)
        weights = active if self.reduction == "sum" else mean_of(active)
        return ops.sum(parts * (weights * lengths)[:, None], axis=0) / lengths

    def get_config(self) -> Config:
        config = {"reduction": self.reduction, "shuffle": self.shuffle, "seed": self.seed}
        return {**super().get_config(), **config}
