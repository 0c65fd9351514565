from __future__ import annotations

import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import reorder, scaled, shuffled_order

# A target of 1 would ask for an infinite gradient.
MAX_TARGET = 0.999


@register_balancing("gradvac")
class GradVac(GramBalancing):
    """GradVac: each pair of gradients is brought to the cosine that this pair usually has.

        p_i = g_i;  for j != i in random order, with phi = cos(p_i, g_j) and the pair's target t_ij:
            if phi < t_ij:  p_i = p_i + g_j ||p_i|| (t sqrt(1 - phi^2) - phi sqrt(1 - t^2)) / (||g_j|| sqrt(1 - t^2))
            t_ij = (1 - beta) t_ij + beta phi
        d = sum_i p_i

    after which `cos(p_i, g_j) = t_ij`. With all targets at 0, where they start, this is PCGrad. It acts on gradients
    that agree less than they used to, even where they do not conflict; tasks whose cosine is always the same are left
    alone. Like PCGrad it changes directions and not scales. There is one target a pair for all shared weights together
    (the paper also has one for each layer). One random order serves all i of a step. It costs a backward pass for each
    task; the state is a number for each pair.

    Args:
        beta: The share of a new cosine in the moving averages. 0.01 is the paper's as far as is remembered, which was
            not checked; LibMTL has 0.5.
        shuffle: Whether every step has a new random order, the same on all replicas. With False the order is that of
            the losses.
        seed: Seed of the random orders.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients and the targets are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `beta` is outside [0, 1], `seed` is negative, or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import GradVac
    >>> method = GradVac(beta=0.5)
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = method.coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c], round(float(method.targets[0][1]), 3)
    ([2.0, 1.5], -0.354)

    Reference: Wang et al., ICLR 2021, arXiv:2010.05874.
    """

    def __init__(
        self,
        beta: float = 0.01,
        shuffle: bool = True,
        seed: int = 0,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.beta = check.check_number("beta", beta, minimum=0, maximum=1)
        self.shuffle = bool(shuffle)
        self.seed = check.check_int("seed", seed, minimum=0)

    def make_state(self, count: int) -> None:
        self.targets = self.state("targets", (count, count), 0.0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        cosines, lengths, _ = scaled(gram, active)
        count = cosines.shape[0]
        kept = ops.convert_to_tensor(self.targets)
        pairs = active[:, None] * active[None, :] * (1 - np.eye(count, dtype="float32"))
        given = [cosines, kept, pairs]
        shuffle = self.shuffle and count > 2
        if shuffle:
            order, back = shuffled_order(count, self.step_seed(self.seed))
            given = [reorder(matrix, order) for matrix in given]
        parts, met = _vaccinate(*given)
        if shuffle:
            parts, met = reorder(parts, back), reorder(met, back)
        self.targets.assign(kept + self.beta * pairs * (met - kept))
        return ops.sum(parts * (active * lengths)[:, None], axis=0) / lengths

    def get_config(self) -> Config:
        config = {"beta": self.beta, "shuffle": self.shuffle, "seed": self.seed}
        return {**super().get_config(), **config}


def _vaccinate(cosines: Tensor, targets: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns p_i / ||g_i|| as a combination of the gradients' directions, in row i, and the cosines that were met."""
    count = cosines.shape[0]
    eye = np.eye(count, dtype="float32")
    wanted = ops.clip(targets, -MAX_TARGET, MAX_TARGET)
    height = ops.sqrt(1.0 - wanted * wanted)
    slope = wanted / height
    parts, length, met = ops.convert_to_tensor(eye), ops.ones((count, 1)), []
    for j in range(count):
        product = ops.sum(parts * cosines[j], axis=1, keepdims=True)
        cosine = ops.clip(product / ops.maximum(length, 1e-3), -1.0, 1.0)
        met.append(cosine)
        # The part of p_i that is orthogonal to g_j, which stays.
        rest = length * ops.sqrt(1.0 - cosine * cosine)
        acts = ops.logical_and(cosine < wanted[:, j : j + 1], pairs[:, j : j + 1] > 0)
        parts = parts + ops.where(acts, rest * slope[:, j : j + 1] - product, 0.0) * eye[j]
        length = ops.where(acts, rest / height[:, j : j + 1], length)
    return parts, ops.concatenate(met, axis=1)
