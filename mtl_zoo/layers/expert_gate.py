from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._once import project
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.options import Gate, as_gate


class BaseGate(keras.layers.Layer):
    """Base of gates: they know how many experts they weigh, and the experts' names in reports.

    Input: (batch, width). Output: (batch, num_experts), rows sum to 1, float32.

    Example:

    >>> from mtl_zoo.layers import BaseGate, ExpertGate
    >>> isinstance(ExpertGate(4), BaseGate)
    True
    """

    def __init__(self, num_experts: int, expert_names: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_experts = check.check_count("num_experts", num_experts)
        names = [f"expert_{i}" for i in range(num_experts)] if expert_names is None else list(expert_names)
        if len(names) != num_experts:
            raise ValueError(
                f"`expert_names` must hold a name for each of {num_experts} experts. Received: expert_names={names!r}"
            )
        self.expert_names = tuple(names)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.num_experts)

    def compute_output_spec(self, inputs: Tensor, training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "num_experts": self.num_experts, "expert_names": self.expert_names}


@keras.saving.register_keras_serializable(package="mtl_zoo")
class ExpertGate(BaseGate):
    """Weighs experts row by row: `g(x) = softmax(x W / temperature)`.

    In training `gate.dropout` sets weights to zero and renormalises, `g'_i = g_i m_i / sum_j g_j m_j` with
    `m_i ~ Bernoulli(1 - dropout)`, and `gate.entropy` adds a penalty to the loss; see `Gate`.

    Args:
        num_experts: The number of experts that are weighed.
        gate: The options of the gate. Default: `Gate()`.
        expert_names: The experts' names in reports. Default: `expert_0`, `expert_1` and so on.
        seed: Seed of the dropout.

    Input: (batch, width). Output: (batch, num_experts), rows sum to 1, at least float32.

    Reference: Ma et al., KDD 2018, doi:10.1145/3219819.3220007, eq. 7.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import ExpertGate
    >>> ExpertGate(4)(np.zeros((1, 3))).numpy().tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(
        self,
        num_experts: int,
        gate: Gate | None = None,
        expert_names: Sequence[str] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_experts, expert_names, **kwargs)
        checked = as_gate(gate)
        if not isinstance(checked, Gate):
            raise TypeError(f"`gate` must be a Gate; a DSelectK is for DSelectKGate. Received: gate={gate!r}")
        self.gate = checked
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if self.gate.dropout else None

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_experts), initializer="glorot_uniform", name="kernel"
        )
        self.bias = None
        if self.gate.use_bias:
            self.bias = self.add_weight(shape=(self.num_experts,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        logits = project(inputs, self.kernel, self.bias)
        logits = ops.cast(logits, "float32") / self.gate.temperature
        # Over one expert the softmax is 1 whatever the logit, and Keras warns of it as a mistake.
        weights = ops.softmax(logits) if self.num_experts > 1 else ops.ones_like(logits)
        if training and self.gate.entropy:
            entropy = -ops.sum(weights * ops.log(weights + keras.config.epsilon()), axis=-1)
            self.add_loss(-self.gate.entropy * ops.mean(entropy))
        if training and self.gate.dropout:
            weights = self._drop(weights)
        return weights

    def _drop(self, weights: Tensor) -> Tensor:
        kept = keras.random.uniform(ops.shape(weights), seed=self.seed_generator) >= self.gate.dropout
        kept = weights * ops.cast(kept, weights.dtype)
        total = ops.sum(kept, axis=-1, keepdims=True)
        return ops.where(total > 0, kept / ops.where(total > 0, total, 1.0), weights)

    def get_config(self) -> Config:
        gate = keras.saving.serialize_keras_object(self.gate)
        return {**super().get_config(), "gate": gate, "seed": self.seed}

    @classmethod
    def from_config(cls, config: Config) -> ExpertGate:
        config = dict(config)
        config["gate"] = keras.saving.deserialize_keras_object(config["gate"])
        return cls(**config)
