from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class PartitionedNormalization(keras.layers.Layer):
    """Batch normalisation with moments and factors for each domain: with `mu_p` and `var_p` the moments of domain p,

        z' = gamma gamma_p (z - mu_p) / sqrt(var_p + epsilon) + beta + beta_p.

    In training the moments are those of the domain's rows in the batch, which may mix domains; in inference they are
    running moments. Rows of a domain that has a single row in the batch (in inference, that never had more than one),
    and rows whose domain is not known, take the moments of all rows. `gamma_p` and `beta_p` start as 1 and 0.

    A domain's running moments move only with batches that hold it. Over its first `1 / (1 - momentum)` batches they are
    a plain mean, so that a rare domain does not keep the initial values, and from then on
    `m <- momentum m + (1 - momentum) m_batch`. Under tf.distribute the moments are those of the global batch.

    Args:
        momentum: The share of the running moments that is kept at each batch.
        epsilon: A number that is added to the variance.

    Input: (batch, width) and shares (batch, domains), see `DomainShares`. Output: (batch, width).

    Reference: Sheng et al., CIKM 2021, arXiv:2101.11427, from memory. In the paper a batch holds one domain, so mixed
    batches, the fallback to all rows and the plain mean at the start are ours.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import PartitionedNormalization
    >>> x, shares = np.array([[1.0], [3.0], [20.0], [40.0]]), np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    >>> PartitionedNormalization()(x, shares, training=True).numpy().round(2).ravel().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = check.check_number("momentum", momentum, minimum=0, below=1)
        self.epsilon = check.check_number("epsilon", epsilon, above=0)

    def build(self, inputs_shape: Shape, shares_shape: Shape) -> None:
        width, domains = inputs_shape[-1], shares_shape[-1]

        def add(name: str, shape: Shape, initializer: Any, trainable: bool = True) -> Any:
            return self.add_weight(shape=shape, initializer=initializer, trainable=trainable, autocast=False, name=name)

        self.gamma, self.beta = add("gamma", (width,), "ones"), add("beta", (width,), "zeros")
        self.domain_gamma = add("domain_gamma", (domains, width), "ones")
        self.domain_beta = add("domain_beta", (domains, width), "zeros")
        # The last row holds the moments of all domains together.
        self.moving_mean = add("moving_mean", (domains + 1, width), "zeros", trainable=False)
        self.moving_variance = add("moving_variance", (domains + 1, width), "ones", trainable=False)
        self.batches = add("batches", (domains + 1,), "zeros", trainable=False)

    def call(self, inputs: Tensor, shares: Tensor, training: bool | None = None) -> Tensor:
        x, shares = ops.cast(inputs, "float32"), ops.cast(shares, "float32")
        domains = shares.shape[-1]
        # Of floats, Keras' argmax is made of bitwise operations, which LiteRT lacks.
        whole = ops.cast(shares >= 1, "int32")
        row = ops.where(ops.max(whole, axis=-1) == 1, ops.argmax(whole, axis=-1), domains)
        row = ops.cast(row, "int32")
        if training:
            mean, variance, usable = self._batch_moments(x, row, domains)
            self._update(mean, variance, usable)
        else:
            mean, variance = ops.convert_to_tensor(self.moving_mean), ops.convert_to_tensor(self.moving_variance)
            usable = self.batches > 0
        row = ops.where(ops.take(usable, row, axis=0), row, domains)
        normal = (x - ops.take(mean, row, axis=0)) * ops.rsqrt(ops.take(variance, row, axis=0) + self.epsilon)
        gamma = self.gamma * ops.matmul(shares, self.domain_gamma)
        beta = self.beta + ops.matmul(shares, self.domain_beta)
        return ops.cast(gamma * normal + beta, self.compute_dtype)

    def _batch_moments(self, x: Tensor, row: Tensor, domains: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance of each domain's rows and, last, of all rows; and which of them have enough rows."""

        def sums(values: Tensor) -> Tensor:
            by_domain = _backend.sum_over_replicas(ops.segment_sum(values, row, num_segments=domains + 1))
            return ops.concatenate([by_domain[:-1], ops.sum(by_domain, axis=0, keepdims=True)], axis=0)

        rows = sums(ops.ones_like(x[:, :1]))
        divisor = ops.maximum(rows, 1.0)
        mean = sums(x) / divisor
        # From deviations: in float32, sums of squares would lose the variance of columns with a large mean.
        within = sums(ops.square(x - ops.take(mean, row, axis=0)))[:-1]
        overall = _backend.sum_over_replicas(ops.sum(ops.square(x - mean[-1]), axis=0, keepdims=True))
        variance = ops.concatenate([within, overall], axis=0) / divisor
        enough = ops.concatenate([rows[:-1, 0] >= 2, rows[-1:, 0] >= 1], axis=0)
        return mean, variance, enough

    def _update(self, mean: Tensor, variance: Tensor, moved: Tensor) -> None:
        batches = self.batches + ops.cast(moved, "float32")
        rate = ops.maximum(1 - self.momentum, 1 / ops.maximum(batches, 1.0))
        rate = ops.where(moved, rate, 0.0)[:, None]
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving + rate * (ops.stop_gradient(of_batch) - moving))
        self.batches.assign(batches)

    def compute_output_shape(self, inputs_shape: Shape, shares_shape: Shape) -> Shape:
        return tuple(inputs_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
