from __future__ import annotations

from typing import Any

from keras import ops

from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, Rows
from mtl_zoo.layers.history import HistorySelfAttention
from mtl_zoo.self_supervision._base import Objective, Setting, register_objective, rows
from mtl_zoo.self_supervision._candidates import IdSoftmax


@register_objective("next_item")
class NextItem(Objective):
    """Each item of a sequence, predicted from those before it: see `NextItemTask`.

    Example:

    >>> from mtl_zoo.self_supervision import OBJECTIVES
    >>> OBJECTIVES["next_item"].__name__
    'NextItem'
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(task, setting)
        known = {f.name: f for f in setting.features if f.is_ordered and isinstance(f.embed(), Rows)}
        feature = known.get(task.sequence)
        if feature is None or feature.shape[0] is None or feature.shape[0] < 2:
            raise ValueError(
                f"`sequence` of the task `{task.name}` must name a sequence of ids with two places or more. Received: "
                f"sequence={task.sequence!r}. Expected: one of {list(known)}"
            )
        lookup = setting.lookup_of(feature.name)
        self.softmax = IdSoftmax(lookup, feature, task.negatives, ranks=True)
        encoder = lookup.encoder_of(feature.name)
        self.own = None
        if not isinstance(encoder, HistorySelfAttention):
            longest = feature.shape[0]
            self.own = HistorySelfAttention(
                task.num_blocks,
                dropout=task.dropout,
                max_positions=longest,
                name=f"{task.name}_encoder",
                dtype="float32",
            )
            self.own.build((None, longest - 1, self.softmax.dim))
            encoder = self.own
        self._encoder = lambda: encoder  # where it is the model's, no part of this layer, which Keras would make it
        self._rows_of, self.num_ids = lookup.rows_of, self.softmax.num_known + FIRST_ID

    def call(self, passes: Any) -> Any:
        ids = ops.cast(passes.inputs[self.task.sequence], "int32")
        has_next = ops.not_equal(ids[:, 1:], MISSING_ID)
        before, after = ids[:, :-1], ids[:, 1:]
        vectors = self._rows_of(self.task.sequence, before)
        vectors = ops.where(has_next[..., None], vectors, ops.zeros_like(vectors))
        states = ops.cast(self._encoder().states(vectors, has_next, training=True), "float32")
        counts = ops.logical_and(has_next, ops.logical_and(after >= FIRST_ID, after < self.num_ids))
        losses, above = self.softmax(states, ops.where(counts, after, FIRST_ID))
        counts = ops.cast(counts, "float32")
        total = ops.sum(counts, axis=1)
        most = ops.maximum(total, 1.0)
        rank = ops.sum(counts / (1.0 + above), axis=1) / most
        return rows(ops.sum(losses * counts, axis=1) / most, total, (rank, total))
