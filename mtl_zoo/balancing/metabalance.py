from __future__ import annotations

import itertools
from collections.abc import Sequence

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GradientBalancing
from mtl_zoo.balancing._registry import register_balancing

EPSILON = 1e-12


@register_balancing("metabalance")
class MetaBalance(GradientBalancing):
    """MetaBalance: auxiliary gradients are brought to the size of the target task's, weight by weight.

    For each weight tensor and task, with target task 0 and `n_k` a moving average of norms that starts at 0:

        n_k <- beta n_k + (1 - beta) ||g_k||
        g_k <- relax * (n_0 / n_k) g_k + (1 - relax) g_k;   d = sum_k g_k

    A tensor that the target does not depend on keeps the plain sum, and where an auxiliary task has no gradient yet
    there is nothing to scale. For tables, the tasks' gradients are scaled by the ratio of their norms over all shared
    weights. The paper also has variants that correct only gradients that are larger, or only those that are smaller;
    this one does both.

    Args:
        target: Name of the target task's loss. Default: the first.
        relax: How far sizes are made equal, from 0 (the plain sum) to 1.
        beta: The share of a moving average that is kept at each step.
        name: The method's name in Keras.

    Raises:
        ValueError: If the target is not a loss of the model, `relax` is outside [0, 1], or `beta` is outside [0, 1).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import MetaBalance
    >>> method = MetaBalance()
    >>> method.sizes = (2,)
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gradients = np.array([[3.0, 4.0], [0.3, 0.4]], "float32")
    >>> direction, _ = method.direction(gradients, np.ones(2, "float32"), np.ones(2, "float32"), (2,))
    >>> [round(float(x), 2) for x in direction]
    [5.19, 6.92]

    Reference: He et al., WWW 2022, arXiv:2203.06801. The smallest norm, and what happens without a gradient, are ours.
    """

    keeps_gradients = True

    def __init__(
        self, target: str | None = None, relax: float = 0.7, beta: float = 0.9, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.target = target
        self.relax = check.check_number("relax", relax, minimum=0, maximum=1)
        self.beta = check.check_number("beta", beta, minimum=0, below=1)

    def make_state(self, count: int) -> None:
        target = self.loss_names[0] if self.target is None else self.target
        self.target_index = self.loss_names.index(check.check_choice("target", target, self.loss_names))
        self.norms = self.state("norms", (count, len(self.sizes)), 0.0)

    def direction(
        self, gradients: Tensor, losses: Tensor, active: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        ends = list(itertools.accumulate(sizes))
        parts = [gradients[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]
        now = ops.stack([ops.sqrt(ops.sum(ops.square(part), axis=1)) for part in parts], axis=1)
        norms = ops.convert_to_tensor(self.norms)
        norms = ops.where(active[:, None] > 0, self.beta * norms + (1 - self.beta) * now, norms)
        self.norms.assign(norms)
        scales = self._scales(norms)
        scaled = [ops.sum(scales[:, i, None] * part, axis=0) for i, part in enumerate(parts)]
        over_all = ops.sqrt(ops.sum(ops.square(norms), axis=1, keepdims=True))
        return ops.concatenate(scaled), self._scales(over_all)[:, 0]

    def _scales(self, norms: Tensor) -> Tensor:
        target = norms[self.target_index]
        known = ops.logical_and(norms > EPSILON, target > EPSILON)
        return ops.where(known, self.relax * target / ops.maximum(norms, EPSILON) + (1 - self.relax), 1.0)

    def get_config(self) -> Config:
        return {**super().get_config(), "target": self.target, "relax": self.relax, "beta": self.beta}
