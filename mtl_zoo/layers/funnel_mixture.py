from __future__ import annotations

import keras
from keras import ops

from mtl_zoo._types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FunnelMixture(keras.layers.Layer):
    """The logit of `p r + (1 - p) s`, from the logits of the probabilities `p`, `r` and `s`.

    This is the probability of an event that happens with probability `r` after an action and `s` without it, where `p`
    is the probability of the action. With `l` the logarithm of the sigmoid and logits `a`, `b`, `c`:

        log(mixture)     = logsumexp(l(a) + l(b),  l(-a) + l(c))
        log(1 - mixture) = logsumexp(l(a) + l(-b), l(-a) + l(-c))

    and the output is their difference. No probability is computed, so none is rounded to 0 or 1. The computation is in
    float32 at least.

    Input: the logits of `p`, `r` and `s`, three tensors of one shape. Output: that shape.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import FunnelMixture
    >>> p, r, s = (np.array([[np.log(x / (1 - x))]], "float32") for x in (0.4, 0.5, 0.1))
    >>> round(1 / (1 + float(np.exp(-FunnelMixture()(p, r, s)[0, 0]))), 6)
    0.26
    """

    def call(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        a, b, c = (ops.cast(logit, "float32") for logit in (first, second, third))
        # logsumexp rather than logaddexp, whose gradient at equal arguments is one-sided on TensorFlow.
        yes = ops.logsumexp(_log_products(a, b, c), axis=0)
        no = ops.logsumexp(_log_products(a, -b, -c), axis=0)
        return yes - no

    def compute_output_shape(self, first_shape: Shape, second_shape: Shape, third_shape: Shape) -> Shape:
        return tuple(first_shape)

    def compute_output_spec(self, first: Tensor, second: Tensor, third: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(first.shape, dtype="float32")


def _log_products(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return ops.stack([ops.log_sigmoid(a) + ops.log_sigmoid(b), ops.log_sigmoid(-a) + ops.log_sigmoid(c)], axis=0)
