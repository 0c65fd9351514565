from __future__ import annotations

from typing import Any

import keras

from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers.partitioned_normalization import PartitionedNormalization
from mtl_zoo.layers.star_dense import StarDense
from mtl_zoo.options import Units, as_mlp


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StarStack(keras.layers.Layer):
    """An MLP of `StarDense` layers: `x -> dropout(activation(norm(x (W * W_p) + b + b_p)))`.

    Args:
        mlp: An `MLP`, or its layer widths; with `norm="batch"` it normalises by domain (`PartitionedNormalization`).

    Input: (batch, width) and shares (batch, domains), see `DomainShares`. Output: (batch, last width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import StarStack
    >>> StarStack((8, 4))(np.zeros((2, 3)), np.eye(2)).shape[-1]
    4
    """

    def __init__(self, mlp: Units, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlp = as_mlp("mlp", mlp)
        self.dense, self.norms, self.activations, self.dropouts = [], [], [], []
        for i, units in enumerate(self.mlp.units):
            dropout = keras.layers.Dropout(self.mlp.dropout, name=f"dropout_{i}", dtype=self.dtype_policy)
            self.dense.append(StarDense(units, name=f"dense_{i}", dtype=self.dtype_policy))
            self.norms.append(self._norm(i))
            self.activations.append(
                keras.layers.Activation(self.mlp.activation, name=f"activation_{i}", dtype=self.dtype_policy)
            )
            self.dropouts.append(dropout if self.mlp.dropout else None)

    def _norm(self, i: int) -> keras.layers.Layer | None:
        if self.mlp.norm == "batch":
            return PartitionedNormalization(epsilon=self.mlp.epsilon, name=f"norm_{i}", dtype=self.dtype_policy)
        if self.mlp.norm == "layer":
            return keras.layers.LayerNormalization(epsilon=self.mlp.epsilon, name=f"norm_{i}", dtype=self.dtype_policy)
        return None

    def build(self, inputs_shape: Shape, shares_shape: Shape) -> None:
        for dense, norm in zip(self.dense, self.norms, strict=True):
            dense.build(inputs_shape, shares_shape)
            inputs_shape = (*inputs_shape[:-1], dense.units)
            if isinstance(norm, PartitionedNormalization):
                norm.build(inputs_shape, shares_shape)
            elif norm is not None:
                norm.build(inputs_shape)

    def call(self, inputs: Tensor, shares: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        for dense, norm, activation, dropout in zip(
            self.dense, self.norms, self.activations, self.dropouts, strict=True
        ):
            y = dense(x, shares)
            if isinstance(norm, PartitionedNormalization):
                y = norm(y, shares, training=training)
            elif norm is not None:
                y = norm(y)
            y = activation(y)
            if dropout is not None:
                y = dropout(y, training=training)
            x = x + y if self.mlp.residual and x.shape[-1] == y.shape[-1] else y
        return x

    def compute_output_shape(self, inputs_shape: Shape, shares_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.mlp.units[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "mlp": keras.saving.serialize_keras_object(self.mlp)}

    @classmethod
    def from_config(cls, config: Config) -> StarStack:
        config = dict(config)
        config["mlp"] = keras.saving.deserialize_keras_object(config["mlp"])
        return cls(**config)
