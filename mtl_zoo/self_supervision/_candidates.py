"""The softmax over the ids of a table, or over some of them."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mtl_zoo.features.requests import FIRST_ID
from mtl_zoo.layers import FeatureEmbedding

_FAR = -1e30


class IdSoftmax(keras.layers.Layer):
    """How well a vector tells an id of a feature from the other known ids of its table, whose rows are the output's.

    With V known values and candidates N, drawn evenly, or all of them if they are no more than `negatives`:

        loss = log(exp s_i + V / |N| sum_{j in N, j != i} exp s_j) - s_i,    s_j = <q, E_j>

    Args:
        lookup: The embedding that has the table.
        feature: The feature.
        negatives: The most candidates.

    Input: queries (batch, length or 1, dim) and ids (batch, length). Output: the losses, and how many candidates score
    higher than the id, two (batch, length) tensors.
    """

    def __init__(self, lookup: FeatureEmbedding, feature: Any, negatives: int):
        super().__init__(name=f"{feature.name}_softmax", dtype="float32")
        request = feature.embed()
        self.feature, self.dim, self.num_known = feature.name, request.dim, request.num_ids - FIRST_ID
        self.drawn = negatives if negatives < self.num_known else None
        self.seeds = keras.random.SeedGenerator()
        # Not a part of this layer: the table is the model's.
        self._rows_of = lookup.rows_of
        self.built = True

    def call(self, queries: Any, ids: Any) -> tuple[Any, Any]:
        if self.drawn is None:
            candidates = ops.arange(FIRST_ID, FIRST_ID + self.num_known, dtype="int32")
        else:
            last = FIRST_ID + self.num_known
            candidates = keras.random.randint((self.drawn,), FIRST_ID, last, seed=self.seeds, dtype="int32")
        known = ops.cast(self._rows_of(self.feature, candidates), "float32")
        own = ops.sum(queries * ops.cast(self._rows_of(self.feature, ids), "float32"), axis=-1)
        scores = ops.matmul(queries, ops.transpose(known))
        is_own = ops.equal(ids[..., None], candidates)
        scores = ops.where(is_own, _FAR, scores)
        correction = 0.0 if self.drawn is None else math.log(self.num_known / self.drawn)
        together = ops.concatenate([own[..., None], scores + correction], axis=-1)
        above = ops.sum(ops.cast(scores > own[..., None], "float32"), axis=-1)
        return ops.logsumexp(together, axis=-1) - own, ops.stop_gradient(above)
