from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo._once import project
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._batch_norm import batch_norm
from mtl_zoo.layers._low_rank import LowRankUpdate
from mtl_zoo.options import Units, as_mlp

# Measured for MLPs of 16 to 256 units: one by one, up to 16 experts took 0.7 to 0.8 of the time, 64 small ones 1.2.
_MOST_ONE_BY_ONE = 32


@keras.saving.register_keras_serializable(package="mtl_zoo")
class ExpertBank(keras.layers.Layer):
    """Several MLPs of the same shape, run together: expert `e` is `x -> activation(x W_e + b_e)`, layer by layer.

    Kernels are stored as (experts, in, out), however they are multiplied: on TensorFlow one by one, which is fastest
    with its CPU kernels, and elsewhere as one product. Each expert starts from its own draw, distributed like the
    kernel of a single `Dense`, so no two experts start equal.

    Args:
        num_experts: The number of experts.
        mlp: An `MLP`, or its layer widths.
        kernel_initializer: A Keras initializer, or the name or config of one. Every expert gets a copy with a new seed.

    Input: (batch, width), which every expert reads, or (batch, experts, width), of which expert `e` reads row `e`.
    Output: (batch, experts, last width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import ExpertBank
    >>> ExpertBank(3, (8, 4))(np.zeros((2, 5), "float32")).shape[1:]
    TensorShape([3, 4])
    """

    def __init__(self, num_experts: int, mlp: Units, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_experts = check.check_count("num_experts", num_experts)
        self.mlp = as_mlp("expert_units", mlp)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.activation = keras.activations.get(self.mlp.activation)
        self.dropout = keras.layers.Dropout(self.mlp.dropout, name="dropout", dtype=self.dtype_policy)
        self.updates = [LowRankUpdate(name=f"{self.name}_update_{i}") for i in range(len(self.mlp.units))]
        self.norms = []
        if self.mlp.norm == "batch":
            self.norms = [
                batch_norm(f"norm_{i}", self.mlp.epsilon, self.dtype_policy) for i in range(len(self.mlp.units))
            ]

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        self.kernels, self.biases, self.scales, self.offsets = [], [], [], []
        for i, units in enumerate(self.mlp.units):
            shape = (self.num_experts, width, units)
            self.kernels.append(self.add_weight(shape=shape, initializer=self._draw_each, name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=(self.num_experts, units), initializer="zeros", name=f"bias_{i}"))
            if self.mlp.norm == "batch":
                self.norms[i].build((input_shape[0], self.num_experts * units))
            if self.mlp.norm == "layer":
                per_unit = (self.num_experts, units)
                self.scales.append(self.add_weight(shape=per_unit, initializer="ones", name=f"norm_{i}_gamma"))
                self.offsets.append(self.add_weight(shape=per_unit, initializer="zeros", name=f"norm_{i}_beta"))
            width = units

    def adapt(self, rank: int, alpha: float) -> int:
        """Freezes the experts but for low-rank updates of their kernels; the number of kernels."""
        for kernel, update in zip(self.kernels, self.updates, strict=True):
            update.attach(kernel.shape, rank, alpha)
        for weight in (*self.kernels, *self.biases, *self.scales, *self.offsets):
            weight.trainable = False
        for norm in self.norms:
            norm.trainable = False
        return len(self.kernels) * self.num_experts

    def merged_kernels(self) -> list[tuple[Any, Tensor]]:
        """Each kernel that has an update, and what both are together."""
        return [(self.kernels[i], self._updated_kernel(i)) for i, update in enumerate(self.updates) if update.built]

    def _updated_kernel(self, i: int) -> Tensor:
        kernel, update = self.kernels[i], self.updates[i]
        return kernel + update.change(kernel.dtype) if update.built else kernel

    def _draw_each(self, shape: Shape, dtype: Any = None) -> Tensor:
        # A stacked shape would change the initializer's fans, and one initializer would draw the same numbers
        # for every expert: each expert's kernel is drawn alone, from a clone with a seed of its own.
        return ops.stack([self._fresh_initializer()(shape[1:], dtype=dtype) for _ in range(shape[0])])

    def _fresh_initializer(self) -> Any:
        config = self.kernel_initializer.get_config()
        if "seed" in config:
            config["seed"] = None
        return type(self.kernel_initializer).from_config(config)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # Norms and dropout work on all experts at once, and many small products cost more than one large product.
        few = self.num_experts <= _MOST_ONE_BY_ONE
        if _backend.is_tensorflow() and few and not self.mlp.norm and not self.mlp.dropout:
            return self._one_by_one(inputs)
        return self._together(inputs, training)

    def _one_by_one(self, inputs: Tensor) -> Tensor:
        n = self.num_experts
        experts = [inputs] * n if len(inputs.shape) == 2 else ops.unstack(inputs, n, axis=1)
        for i, units in enumerate(self.mlp.units):
            kernels, biases = ops.unstack(self._updated_kernel(i), n), ops.unstack(self.biases[i], n)
            residual = self.mlp.residual and (i > 0 or len(inputs.shape) == 3) and experts[0].shape[-1] == units
            outputs = [self.activation(project(x, w, b)) for x, w, b in zip(experts, kernels, biases, strict=True)]
            experts = [x + y for x, y in zip(experts, outputs, strict=True)] if residual else outputs
        return ops.stack(experts, axis=1)

    def _together(self, inputs: Tensor, training: bool | None) -> Tensor:
        x = inputs
        for i in range(len(self.mlp.units)):
            equation = "bd,ndh->bnh" if len(x.shape) == 2 else "bnd,ndh->bnh"
            y = ops.einsum(equation, x, self._updated_kernel(i)) + self.biases[i]
            y = self.activation(self._normalize(i, y, training))
            y = self.dropout(y, training=training) if self.mlp.dropout else y
            x = x + y if self.mlp.residual and len(x.shape) == 3 and x.shape[-1] == y.shape[-1] else y
        return x

    def _normalize(self, i: int, y: Tensor, training: bool | None) -> Tensor:
        if self.mlp.norm == "batch":
            flat = ops.reshape(y, (-1, y.shape[1] * y.shape[2]))
            return ops.reshape(self.norms[i](flat, training=training), (-1, *y.shape[1:]))
        if self.mlp.norm == "layer":
            wide = ops.cast(y, "float32")
            mean, variance = ops.moments(wide, axes=[-1], keepdims=True)
            scaled = ops.cast((wide - mean) * ops.rsqrt(variance + self.mlp.epsilon), y.dtype)
            return scaled * self.scales[i] + self.offsets[i]
        return y

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_experts, self.mlp.units[-1])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "mlp": keras.saving.serialize_keras_object(self.mlp),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

    @classmethod
    def from_config(cls, config: Config) -> ExpertBank:
        config = dict(config)
        config["mlp"] = keras.saving.deserialize_keras_object(config["mlp"])
        return cls(**config)
