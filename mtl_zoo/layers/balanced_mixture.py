from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class BalancedMixture(keras.layers.Layer):
    """Mixes each expert with the mean of the others, by two learned numbers in (0, 1).

    With n experts `E_i`, and `balance` and `strength` the sigmoids of two weights that start at 0:

        y_i = strength * (balance E_i + (1 - balance) / (n - 1) sum_(j != i) E_j)

    and `y_1 = strength * E_1` for a single expert.

    Input: experts (batch, n, units), and optionally shares (batch, n) that say which expert a row belongs to (see
    `DomainShares`; equal shares give the mean over all experts). Output: with shares (batch, units); without, a list of
    `y_1 .. y_n`, each (batch, units).

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
        """The factor of the whole mixture."""
        return ops.sigmoid(self.strength_logit)

    @property
    def balance(self) -> Tensor:
        """The weight of expert i in `y_i`; the other experts together have the rest."""
        return ops.ones(()) if self.balance_logit is None else ops.sigmoid(self.balance_logit)

    def call(self, experts: Tensor, shares: Tensor | None = None) -> Tensor | list[Tensor]:
        n = experts.shape[1]
        matching = ops.eye(n) if shares is None else ops.cast(shares, "float32")
        # A single expert has no others to share its weight with, and n - 1 = 0 must not be divided by.
        weights = self.strength * (self.balance * matching + (1 - self.balance) / max(n - 1, 1) * (1 - matching))
        weights = ops.cast(weights, experts.dtype)
        if shares is None:
            return ops.unstack(ops.matmul(weights, experts), n, axis=1)
        return ops.squeeze(ops.matmul(weights[:, None, :], experts), axis=1)

    def compute_output_shape(self, experts_shape: Shape, shares_shape: Tensor | None = None) -> Shape | list[Shape]:
        one = (experts_shape[0], experts_shape[-1])
        return [one] * experts_shape[1] if shares_shape is None else one
