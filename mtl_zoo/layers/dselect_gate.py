from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers.expert_gate import BaseGate
from mtl_zoo.options import DSelectK

EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="mtl_zoo")
class DSelectKGate(BaseGate):
    """Weighs experts row by row, sparsely once trained: a mixture of k selectors that choose one expert each.

    Experts have binary codes of `m = ceil(log2 n)` bits, the most significant first. `S` is the smooth step of width
    `gamma`; outside of that width it is exactly 0 or 1, and its gradient is 0:

        S(t) = -2 t^3 / gamma^3 + 3 t / (2 gamma) + 1/2    for |t| < gamma / 2
        r_i(x)_e = prod_b [S(z_ib) if bit b of e is 1, else 1 - S(z_ib)]
        g(x) = sum_i softmax(a)_i r_i(x)

    with `z = x W_z + c_z` and `a = x W_a + c_a`; without `gate.per_example` there are only `c_z` and `c_a`, and all
    rows have the same weights. As in the official code, `c_z` and `W_z` start uniform within `gamma / 100` of 0, which
    makes the weights nearly even, and `c_a` and `W_a` within 0.05. A selector whose bits have all left the step does
    not move again, whatever the loss: this is how it settles, and why it is lost if it settles badly.

    If the number of experts is not a power of 2, some codes belong to no expert, and the weights sum to less than 1
    until the selectors have left those codes. In training `mean over rows of sum_i 1 / (sum_e r_i(x)_e + 1e-6)` is then
    added to the loss; it is least where the sum is 1. Here and in the entropy the official code sums over the rows of
    the batch; a mean does not depend on the batch size. The 1e-6 avoids the 1 / 0 of that code for a selector that
    settled on no expert.

    Args:
        num_experts: The number of experts that are weighed. For one expert the gate has no weights and returns 1.
        gate: The options of the gate. Default: `DSelectK()`.
        expert_names: The experts' names in reports. Default: `expert_0`, `expert_1` and so on.

    Input: (batch, width). Output: (batch, num_experts), at least 0, float32.

    Reference: Hazimeh et al., NeurIPS 2021, arXiv:2106.03760.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import DSelectK
    >>> from mtl_zoo.layers import DSelectKGate
    >>> gate = DSelectKGate(4, DSelectK(num_selected=1, per_example=False))
    >>> gate.build((None, 3))
    >>> _ = gate.selector_bias.assign([0.6, -0.6])  # beyond both ends of the step: the code 10
    >>> gate(np.zeros((1, 3), "float32")).numpy().tolist()
    [[0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(
        self, num_experts: int, gate: DSelectK | None = None, expert_names: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_experts, expert_names, **kwargs)
        self.gate = DSelectK() if gate is None else gate
        if not isinstance(self.gate, DSelectK):
            raise TypeError(f"`gate` must be a DSelectK; a Gate is for ExpertGate. Received: gate={gate!r}")
        self.num_bits = (num_experts - 1).bit_length()

    def build(self, input_shape: Shape) -> None:
        width, k = input_shape[-1], self.gate.num_selected
        start = self.gate.gamma / 100
        self.selector_kernel, self.selector_bias = self._affine("selector", width, k * self.num_bits, start)
        # Over one selector the softmax is 1, whatever it reads.
        self.mixture_kernel, self.mixture_bias = self._affine("mixture", width, k if k > 1 else 0, 0.05)

    def _affine(self, name: str, width: int, units: int, start: float) -> tuple[Any, Any]:
        if not (units and self.num_bits):
            return None, None
        kernel = None
        if self.gate.per_example:
            uniform = keras.initializers.RandomUniform(-start, start)
            kernel = self.add_weight(shape=(width, units), initializer=uniform, name=f"{name}_kernel")
        uniform = keras.initializers.RandomUniform(-start, start)
        return kernel, self.add_weight(shape=(units,), initializer=uniform, autocast=False, name=f"{name}_bias")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        rows = ops.shape(inputs)[0]
        if not self.num_bits:
            return ops.ones((rows, 1), dtype="float32")
        selectors = self.selectors(inputs)
        if training:
            self._add_penalties(selectors)
        if self.mixture_bias is None:
            weights = selectors[:, 0]
        else:
            mixture = ops.softmax(self._logits(inputs, self.mixture_kernel, self.mixture_bias), axis=-1)
            weights = ops.sum(mixture[:, :, None] * selectors, axis=1)
        return weights if self.gate.per_example else ops.broadcast_to(weights, (rows, self.num_experts))

    def selectors(self, inputs: Tensor) -> Tensor:
        """`r`, (batch, k, num_experts), or (1, k, num_experts) where the selection does not depend on the row."""
        logits = self._logits(inputs, self.selector_kernel, self.selector_bias)
        steps = ops.reshape(self._smooth_step(logits), (-1, self.gate.num_selected, self.num_bits, 1))
        codes = np.arange(self.num_experts)[:, None] >> np.arange(self.num_bits)[::-1] & 1
        chosen = 1.0
        for bit in range(self.num_bits):
            step = steps[:, :, bit]
            chosen = chosen * ops.where(codes[:, bit].astype(bool), step, 1.0 - step)
        return chosen

    def _logits(self, inputs: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        if kernel is None:
            return ops.cast(bias, "float32")[None]
        return ops.cast(ops.matmul(inputs, kernel), "float32") + ops.cast(bias, "float32")

    def _smooth_step(self, z: Tensor) -> Tensor:
        # Clipped first: at both ends the cubic is exactly 0 or 1 with a slope of 0, and nothing overflows outside.
        t = ops.clip(z / self.gate.gamma, -0.5, 0.5)
        return (1.5 - 2.0 * t * t) * t + 0.5

    def _add_penalties(self, selectors: Tensor) -> None:
        if self.gate.entropy:
            entropy = -ops.sum(selectors * ops.log(selectors + EPSILON), axis=(1, 2))
            self.add_loss(self.gate.entropy * ops.mean(entropy))
        if self.num_experts < 2**self.num_bits:
            reachable = ops.sum(selectors, axis=-1)
            self.add_loss(ops.mean(ops.sum(1.0 / (reachable + EPSILON), axis=-1)))

    def get_config(self) -> Config:
        return {**super().get_config(), "gate": keras.saving.serialize_keras_object(self.gate)}

    @classmethod
    def from_config(cls, config: Config) -> DSelectKGate:
        config = dict(config)
        config["gate"] = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**config)
