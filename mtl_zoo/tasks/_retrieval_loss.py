"""The loss of retrieval: each positive row's item against the items of all other rows of the batch."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mtl_zoo import _pairs

_FAR = -1e30


@dataclasses.dataclass(frozen=True)
class SampledSoftmax:
    """In-batch sampled softmax by row, `(y (batch,), packed vectors (batch, 2 width + 3), batch) -> (batch,)`.

    Args:
        temperature: What inner products are divided by.
        hard_negatives: How many of a row's negatives count, those of the highest logits; None: all.
        correction: Whether log Q is subtracted.
    """

    temperature: float = 0.1
    hard_negatives: int | None = None
    correction: bool = True

    name: ClassVar[str] = "sampled_softmax"
    needs_batch: ClassVar[bool] = True

    def __call__(self, y: Any, logits: Any, batch: Any = None) -> Any:
        import keras_rs
        from keras import ops

        from mtl_zoo import _backend

        del y
        observed = getattr(batch, "observed", None)
        present = ops.ones_like(logits[:, :1]) if observed is None else ops.cast(observed, "float32")[:, None]
        # Negatives are the items of the global batch.
        everyone, first = _backend.gather_replicas_with_gradient(ops.concatenate([logits, present], axis=1))
        items, ids = _pairs.items_of(everyone[:, :-1]), _pairs.items_of(logits).id_parts
        own = ops.equal((first + ops.arange(ops.shape(logits)[0]))[:, None], ops.arange(ops.shape(everyone)[0])[None])
        scores = ops.matmul(_pairs.users_of(logits), ops.transpose(items.vectors)) / self.temperature
        if self.correction:
            # By default keras-rs takes no probability as smaller than 1e-6, which items of large catalogues are.
            correct = keras_rs.layers.SamplingProbabilityCorrection(1e-12, dtype="float32")
            scores = correct(scores, items.probabilities[None])
        same = ops.all(ops.equal(ids[:, None], items.id_parts[None]), axis=-1)
        # An item that comes again in the batch is no negative of itself. The layer of keras-rs that is for this adds
        # 1e-40 to such logits (0.4.0), which leaves them as they are.
        counts = ops.logical_or(own, ops.logical_and(ops.logical_not(same), everyone[None, :, -1] > 0))
        scores, target = ops.where(counts, scores, _FAR), ops.cast(own, "float32")
        if self.hard_negatives is not None:
            hardest = keras_rs.layers.HardNegativeMining(self.hard_negatives, dtype="float32")
            scores, target = hardest(scores, target)
        return ops.logsumexp(scores, axis=-1) - ops.sum(ops.where(target > 0, scores, 0.0), axis=-1)
