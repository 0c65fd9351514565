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
        ranks: Whether candidates that score higher are counted; else it is 1 where there is one.

    Input: queries (batch, length or 1, dim) and ids of known values (batch, length). Output: the losses, and how many
    candidates score higher than the id, two (batch, length) tensors.
    """

    def __init__(self, lookup: FeatureEmbedding, feature: Any, negatives: int, ranks: bool = False):
        super().__init__(name=f"{feature.name}_softmax", dtype="float32")
        request = feature.embed()
        self.feature, self.dim, self.num_known = feature.name, request.dim, request.num_ids - FIRST_ID
        self.drawn = negatives if negatives < self.num_known else None
        self.ranks = ranks
        self.seeds = keras.random.SeedGenerator()
        # Not a part of this layer: the table is the model's.
        self._rows_of = lookup.rows_of
        self.built = True

    def call(self, queries: Any, ids: Any) -> tuple[Any, Any]:
        scores, own, losses = self._of_all(queries, ids) if self.drawn is None else self._of_some(queries, ids)
        higher = scores > own[..., None] if self.ranks else ops.max(scores, axis=-1) > own
        above = ops.sum(ops.cast(higher, "float32"), axis=-1) if self.ranks else ops.cast(higher, "float32")
        return losses, ops.stop_gradient(above)

    def _of_all(self, queries: Any, ids: Any) -> tuple[Any, Any, Any]:
        """Scores of all known values, those of the ids, and the losses."""
        scores = self._scores(queries, ops.arange(FIRST_ID, FIRST_ID + self.num_known, dtype="int32"))
        if queries.shape[1] == 1:  # one for all ids of a row
            own = ops.take_along_axis(scores[:, 0], ids - FIRST_ID, axis=-1)
        else:
            own = ops.take_along_axis(scores, (ids - FIRST_ID)[..., None], axis=-1)[..., 0]
        return scores, own, ops.logsumexp(scores, axis=-1) - own

    def _of_some(self, queries: Any, ids: Any) -> tuple[Any, Any, Any]:
        """As `_of_all`, of candidates that are drawn: where one is the id itself it does not count."""
        last = FIRST_ID + self.num_known
        candidates = keras.random.randint((self.drawn,), FIRST_ID, last, seed=self.seeds, dtype="int32")
        own = ops.sum(queries * ops.cast(self._rows_of(self.feature, ids), "float32"), axis=-1)
        scores = ops.where(ops.equal(ids[..., None], candidates), _FAR, self._scores(queries, candidates))
        corrected = scores + math.log(self.num_known / self.drawn)
        return scores, own, ops.logsumexp(ops.concatenate([own[..., None], corrected], axis=-1), axis=-1) - own

    def _scores(self, queries: Any, candidates: Any) -> Any:
        return ops.matmul(queries, ops.transpose(ops.cast(self._rows_of(self.feature, candidates), "float32")))
