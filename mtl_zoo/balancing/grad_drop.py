from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import TINY, RepresentationBalancing, check_by_loss
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("grad_drop")
class GradDrop(RepresentationBalancing):
    """GradDrop: at each feature of the shared representation only gradients of one sign pass, drawn at random.

    With `h` the representation and `v_k = sum over the batch of sign(h) dL_k/dh`, for each feature:

        P = 1/2 (1 + sum_k v_k / sum_k |v_k|);   U ~ uniform(0, 1)
        M_k = 1 if v_k > 0 and P > U, or v_k < 0 and P < U;  else 0
        d/dh = sum_k (leak + (1 - leak) M_k) dL_k/dh

    A feature on which the tasks agree passes unchanged, and the expected sum of the `v_k` that pass is the sum of all.
    The representation is that of `MGDAUB`. There are no coefficients, and reports show 1 for active tasks. Where `h` is
    0, as after a ReLU, a row has no sign and does not count in `v`.

    Args:
        leak: The share of each task's gradient that passes in any case, from 0 to 1: one number, or a dict by loss
            name.
        seed: Seed of the draws, which are the same on all replicas.
        name: The method's name in Keras.

    Raises:
        ValueError: If a leak is outside [0, 1], or names are not those of the model's losses.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import GradDrop
    >>> method = GradDrop()
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gradients = np.array([[[1.0, 2.0]], [[1.0, 1.0]]], "float32")  # no conflict
    >>> method.mix(gradients, np.ones((1, 2), "float32"), np.ones(2, "float32"), np.ones(2, "float32")).numpy().tolist()
    [[2.0, 3.0]]

    Reference: Chen et al., NeurIPS 2020, arXiv:2010.06808.
    """

    def __init__(self, leak: float | Mapping[str, float] = 0.0, seed: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        checked: Callable[..., Any] = check_by_loss if isinstance(leak, Mapping) else check.check_number
        self.leak = checked("leak", leak, minimum=0, maximum=1)
        self.seed = check.check_int("seed", seed, minimum=0)

    def make_state(self, count: int) -> None:
        by_name = isinstance(self.leak, Mapping)
        self.leaks = self.by_loss("leak", self.leak if by_name else None, 0.0 if by_name else self.leak)

    def mix(self, gradients: Tensor, values: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        gradients = ops.convert_to_tensor(gradients)
        signed = _backend.sum_over_replicas(ops.sum(gradients * ops.sign(values)[None], axis=1))
        size = ops.sum(ops.abs(signed), axis=0)
        positive = 0.5 * (1 + ops.sum(signed, axis=0) / ops.maximum(size, TINY))
        drawn = keras.random.uniform(positive.shape, seed=self.step_seed(self.seed))
        up = ops.logical_and(signed > 0, positive > drawn)
        down = ops.logical_and(signed < 0, positive <= drawn)
        # A feature without any sign has no conflict either.
        passes = ops.logical_or(ops.logical_or(up, down), size == 0)
        leaks = ops.convert_to_tensor(self.leaks, "float32")[:, None]
        share = leaks + (1 - leaks) * ops.cast(passes, "float32")
        return ops.sum(share[:, None, :] * gradients, axis=0)

    def get_config(self) -> Config:
        leak = dict(self.leak) if isinstance(self.leak, Mapping) else self.leak
        return {**super().get_config(), "leak": leak, "seed": self.seed}
