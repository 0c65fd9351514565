from __future__ import annotations

import dataclasses
from typing import Any

import keras

from mtl_zoo._once import is_split, project
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._batch_norm import batch_norm
from mtl_zoo.layers._low_rank import LowRankUpdate
from mtl_zoo.options import MLP, Units, as_mlp


@keras.saving.register_keras_serializable(package="mtl_zoo")
class DenseStack(keras.layers.Layer):
    """An MLP: `x -> dropout(activation(norm(x W + b)))` for each width of `mlp`.

    Args:
        mlp: An `MLP`, or its layer widths. A stack without layers is the identity.

    Input: (..., width). Output: (..., last width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import DenseStack
    >>> DenseStack((8, 4))(np.zeros((2, 3))).shape[-1]
    4
    """

    def __init__(self, mlp: Units, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlp = as_mlp("mlp", mlp, allow_empty=True)
        self.dense, self.norms, self.activations, self.dropouts = [], [], [], []
        self.updates = [LowRankUpdate(name=f"{self.name}_update_{i}") for i in range(len(self.mlp.units))]
        for i, units in enumerate(self.mlp.units):
            self.dense.append(keras.layers.Dense(units, name=f"dense_{i}", dtype=self.dtype_policy))
            self.norms.append(self._norm(i))
            # Activations are layers of their own so that their outputs can be read and drawn.
            self.activations.append(
                keras.layers.Activation(self.mlp.activation, name=f"activation_{i}", dtype=self.dtype_policy)
            )
            dropout = keras.layers.Dropout(self.mlp.dropout, name=f"dropout_{i}", dtype=self.dtype_policy)
            self.dropouts.append(dropout if self.mlp.dropout else None)

    def _norm(self, i: int) -> keras.layers.Layer | None:
        if self.mlp.norm == "batch":
            return batch_norm(f"norm_{i}", self.mlp.epsilon, self.dtype_policy)
        if self.mlp.norm == "layer":
            return keras.layers.LayerNormalization(epsilon=self.mlp.epsilon, name=f"norm_{i}", dtype=self.dtype_policy)
        return None

    def build(self, input_shape: Shape) -> None:
        for dense, norm in zip(self.dense, self.norms, strict=True):
            dense.build(input_shape)
            input_shape = (*input_shape[:-1], dense.units)
            if norm is not None:
                norm.build(input_shape)

    def adapt(self, rank: int, alpha: float) -> int:
        """Freezes the stack but for low-rank updates of its kernels; the number of kernels."""
        for dense, update, norm in zip(self.dense, self.updates, self.norms, strict=True):
            update.attach(dense.kernel.shape, rank, alpha)
            for part in (dense, norm):
                if part is not None:
                    part.trainable = False
        return len(self.dense)

    def merged_kernels(self) -> list[tuple[Any, Tensor]]:
        """Each kernel that has an update, and what both are together."""
        pairs = zip(self.dense, self.updates, strict=True)
        return [(dense.kernel, dense.kernel + u.change(dense.kernel.dtype)) for dense, u in pairs if u.built]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        for dense, update, norm, activation, dropout in zip(
            self.dense, self.updates, self.norms, self.activations, self.dropouts, strict=True
        ):
            y = project(x, dense.kernel, dense.bias) if is_split(x) else dense(x)
            y = y + update(x) if update.built else y
            if norm is not None:
                y = norm(y, training=training)
            y = activation(y)
            if dropout is not None:
                y = dropout(y, training=training)
            x = x + y if self.mlp.residual and x.shape[-1] == y.shape[-1] else y
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.mlp.units[-1]) if self.mlp.units else tuple(input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "mlp": keras.saving.serialize_keras_object(self.mlp)}

    @classmethod
    def from_config(cls, config: Config) -> DenseStack:
        config = dict(config)
        config["mlp"] = keras.saving.deserialize_keras_object(config["mlp"])
        return cls(**config)


def one_layer(mlp: MLP, i: int) -> MLP:
    """An `MLP` that is layer `i` of `mlp` alone."""
    return dataclasses.replace(mlp, units=(mlp.units[i],))
