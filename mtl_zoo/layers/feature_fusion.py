"""Several vectors of one thing, its text, picture and numbers, made one vector that models read in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._transformer_block import TransformerBlock
from mtl_zoo.options import FeatureFusion


@keras.saving.register_keras_serializable(package="mtl_zoo")
class GatedFusion(keras.layers.Layer):
    """A mixture of several vectors, whose weights follow from all of them (gated multimodal unit).

    With `v_1 .. v_M` the vectors, of any widths:

        z_m = tanh(W_m v_m + b_m)
        g   = softmax(U [v_1; ..; v_M] + c)
        y   = sum_m g_m z_m

    Args:
        units: Width of `y`.

    Input: a list of tensors (batch, any width). Output: (batch, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import GatedFusion
    >>> tuple(GatedFusion(4)([np.ones((2, 3), "float32"), np.ones((2, 5), "float32")]).shape)
    (2, 4)

    Reference: Arevalo et al., 2017, arXiv:1702.01992; with a softmax over the vectors, for any number of them.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units, maximum=check.MAX_UNITS)

    def build(self, input_shape: Sequence[Shape]) -> None:
        dtype = self.dtype_policy
        self.values = []
        for i, shape in enumerate(input_shape):
            self.values.append(keras.layers.Dense(self.units, activation="tanh", name=f"value_{i}", dtype=dtype))
            self.values[-1].build(shape)
        self.gate = keras.layers.Dense(len(input_shape), activation="softmax", name="gate", dtype=dtype)
        self.gate.build((input_shape[0][0], sum(int(shape[-1]) for shape in input_shape)))

    def weights_of(self, inputs: Sequence[Tensor]) -> Tensor:
        """The weights `g`, (batch, vectors)."""
        return self.gate(ops.concatenate(list(inputs), axis=-1))

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        values = ops.stack([value(x) for value, x in zip(self.values, inputs, strict=True)], axis=1)
        return ops.sum(self.weights_of(inputs)[..., None] * values, axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], self.units)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="mtl_zoo")
class AttentionFusion(keras.layers.Layer):
    """Several vectors that look at each other, or that another vector looks at.

    With `v_1 .. v_M` the vectors, of any widths, and `q` that of the feature which asks:

        t_m = W_m v_m + b_m
        y   = mean_m Block(t)_m         a block of a Transformer over the M vectors
        y   = MHA(W_q q + b_q, t, t)    with `q`: cross-attention

    Args:
        units: Width of `y`.
        num_heads: Heads of the attention; `units` must be a multiple of it.

    Input: a list of tensors (batch, any width), and `query` (batch, any width) or None. Output: (batch, units).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import AttentionFusion
    >>> vectors = [np.ones((2, 3), "float32"), np.ones((2, 5), "float32")]
    >>> tuple(AttentionFusion(4)(vectors, query=np.ones((2, 7), "float32")).shape)
    (2, 4)

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762.
    """

    def __init__(self, units: int, num_heads: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units, maximum=check.MAX_UNITS)
        self.num_heads = check.check_count("num_heads", num_heads)
        if units % num_heads:
            raise ValueError(f"`num_heads` must divide `units`. Received: num_heads={num_heads}, units={units}")

    def build(self, inputs_shape: Sequence[Shape], query_shape: Shape | None = None) -> None:
        dtype = self.dtype_policy
        self.values = []
        for i, shape in enumerate(inputs_shape):
            self.values.append(keras.layers.Dense(self.units, name=f"value_{i}", dtype=dtype))
            self.values[-1].build(shape)
        tokens = (inputs_shape[0][0], len(inputs_shape), self.units)
        if query_shape is None:
            self.block = TransformerBlock(self.num_heads, self.units, 0.0, name="block", dtype=dtype)
            self.block.build(tokens)
        else:
            self.asks = keras.layers.Dense(self.units, name="query", dtype=dtype)
            self.asks.build(query_shape)
            width = self.units // self.num_heads
            self.attention = keras.layers.MultiHeadAttention(self.num_heads, width, name="attention", dtype=dtype)
            self.attention.build((tokens[0], 1, self.units), tokens)

    def call(self, inputs: Sequence[Tensor], query: Tensor | None = None, training: bool | None = None) -> Tensor:
        tokens = ops.stack([value(x) for value, x in zip(self.values, inputs, strict=True)], axis=1)
        if query is None:
            everyone = ops.ones((1, 1, len(self.values)), dtype="bool")
            return ops.mean(self.block(tokens, everyone, training=training), axis=1)
        return self.attention(self.asks(query)[:, None], tokens, training=training)[:, 0]

    def compute_output_shape(self, inputs_shape: Sequence[Shape], query_shape: Shape | None = None) -> Shape:
        return (inputs_shape[0][0], self.units)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units, "num_heads": self.num_heads}


def make_fusion(fusion: FeatureFusion, dtype: Any = None) -> Any:
    """The layer that a `FeatureFusion` describes."""
    if fusion.how == "gated":
        return GatedFusion(fusion.units, name=f"{fusion.name}_fusion", dtype=dtype)
    return AttentionFusion(fusion.units, fusion.num_heads, name=f"{fusion.name}_fusion", dtype=dtype)


def fusions_within(
    fusions: Sequence[FeatureFusion], names: Sequence[str], vectors: Sequence[str]
) -> list[FeatureFusion]:
    """The fusions of an embedding's features: those of which it holds all; of which it holds none are another's.

    Args:
        fusions: As a model was given them.
        names: The embedding's features.
        vectors: Those that are one vector.

    Raises:
        ValueError: A fusion names a part of its features only, a list, or a name that a feature has.
    """
    found = []
    for fusion in fusions:
        asked = [*fusion.features, *([fusion.query] if fusion.query else [])]
        if not set(asked) & set(names):
            continue
        if set(asked) - set(vectors):
            raise ValueError(
                f"`features` and `query` of the fusion {fusion.name!r} must name features of one embedding that are "
                f"one vector each. Received: {sorted(set(asked) - set(vectors))}. Features: {list(vectors)}"
            )
        if fusion.name in names:
            raise ValueError(f"`name` of a fusion must not be that of a feature. Received: name={fusion.name!r}")
        found.append(fusion)
    taken = [name for fusion in found for name in fusion.features]
    check.check_unique_names("fusions", taken)
    return found
