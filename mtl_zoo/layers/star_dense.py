from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StarDense(keras.layers.Layer):
    """A linear layer whose weights are shared, times a factor of the row's domain: `x (W * W_p) + b + b_p`.

    `W` starts like the kernel of a `Dense`, `W_p` as ones and `b_p` as zeros, so that all domains start as the shared
    layer. A row whose domain is not known gets the mean of the domains' outputs.

    The outputs of all domains are one product, (batch, in) times (in, domains * out), of which each row keeps the part
    of its domain. No kernel is formed for single rows; time and memory are `domains` times those of a `Dense`.

    Args:
        units: The width of the output.

    Input: (batch, width) and shares (batch, domains), see `DomainShares`. Output: (batch, units).

    Reference: Sheng et al., CIKM 2021, arXiv:2101.11427, from memory.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import StarDense
    >>> StarDense(4)(np.zeros((2, 3)), np.eye(2)).shape[-1]
    4
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units)

    def build(self, inputs_shape: Shape, shares_shape: Shape) -> None:
        width, domains = inputs_shape[-1], shares_shape[-1]
        self.kernel = self.add_weight(shape=(width, self.units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.domain_kernel = self.add_weight(
            shape=(domains, width, self.units), initializer="ones", name="domain_kernel"
        )
        self.domain_bias = self.add_weight(shape=(domains, self.units), initializer="zeros", name="domain_bias")

    def call(self, inputs: Tensor, shares: Tensor) -> Tensor:
        domains, width, units = self.domain_kernel.shape
        # On a CPU, with 3, 10 and 30 domains, one product was faster than a loop over the domains and than an einsum.
        kernels = ops.reshape(ops.transpose(self.kernel * self.domain_kernel, (1, 0, 2)), (width, domains * units))
        outputs = ops.reshape(ops.matmul(inputs, kernels), (-1, domains, units))
        return ops.sum(shares[:, :, None] * (outputs + self.domain_bias), axis=1) + self.bias

    def compute_output_shape(self, inputs_shape: Shape, shares_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}
