from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class BalancedMixture(keras.layers.Layer):
    """One's own expert and the mean of the others', by two learned numbers in (0, 1).

    With n experts `E_i`, `balance` and `strength` each the sigmoid of a weight that starts as 0:

        y_i = strength * (balance E_i + (1 - balance) / (n - 1) sum_(j != i) E_j)

    and `y_1 = strength * E_1` for a single expert.

    Input: experts (batch, n, units), and optionally shares (batch, n) that say which expert is a row's own (see
    `DomainShares`; equal shares give the mean of all experts). Output: (batch, units) with shares; without, a list of
    `y_1 .. y_n`, (batch, units) each.

    Reference: Zhang et al., SIGIR 2024, arXiv:2404.18465, and the authors' code (Applied-Machine-Learning-Lab/M3oE).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import BalancedMixture
    >>> experts = np.array([[[1.0], [3.0], [5.0]]])
    >>> [float(y[0, 0]) for y in BalancedMixture()(experts)]
    [1.25, 1.5, 1.75]
    """

    def build(self, experts_shape: Shape, shares_shape: Shape | None = None) -> None:
        logit = {"shape": (), "initializer": "zeros", "autocast": False}
        self.strength_logit = self.add_weight(name="strength_logit", **logit)
        self.balance_logit = self.add_weight(name="balance_logit", **logit) if experts_shape[1] > 1 else None

    @property
    def strength(self) -> Tensor:
        """How much of the mixture is passed on."""
        return ops.sigmoid(self.strength_logit)

    @property
    def balance(self) -> Tensor:
        """The weight of one's own expert; that of the others together is the rest."""
        return ops.ones(()) if self.balance_logit is None else ops.sigmoid(self.balance_logit)

    def call(self, experts: Tensor, shares: Tensor | None = None) -> Tensor | list[Tensor]:
        n = experts.shape[1]
        own = ops.eye(n) if shares is None else ops.cast(shares, "float32")
        # A single expert has no others to share its weight with: no division by n - 1 = 0.
        weights = self.strength * (self.balance * own + (1 - self.balance) / max(n - 1, 1) * (1 - own))
        weights = ops.cast(weights, experts.dtype)
        if shares is None:
            return ops.unstack(ops.matmul(weights, experts), n, axis=1)
        return ops.squeeze(ops.matmul(weights[:, None, :], experts), axis=1)

    def compute_output_shape(self, experts_shape: Shape, shares_shape: Tensor | None = None) -> Shape | list[Shape]:
        one = (experts_shape[0], experts_shape[-1])
        return [one] * experts_shape[1] if shares_shape is None else one
