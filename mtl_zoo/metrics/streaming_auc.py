"""The area under the ROC curve, batch by batch, for training logs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check

# Scores beyond these logits (6e-6 from 0 or 1) share the outermost bins.
_LOWEST_LOGIT, _HIGHEST_LOGIT = -12.0, 12.0


@keras.saving.register_keras_serializable(package="mtl_zoo")
class StreamingAUC(keras.metrics.Metric):
    """Area under the ROC curve from a histogram of the scores' logits.

    `AUC = sum_b P_b (N_<b + N_b / 2) / (P N)`, with `P_b`, `N_b` the weights of positive and negative rows in bin b.

    The bins have equal width on the logit scale, so scores that are all near 0 (a conversion rate) are told apart;
    `keras.metrics.AUC` has thresholds of equal width in the score and is badly off there. The result is NaN as long as
    one of the two classes is missing. Reported results use the exact `mtl_zoo.evaluation.auc`.

    Args:
        name: Name in the logs.
        bins: Number of bins between logits -12 and 12.
        dtype: Of the counts.

    Call: `update_state(y_true, y_pred, sample_weight=None)` with labels 0 and 1 (NaN: not observed) and scores in
    [0, 1], of shape (batch,) or (batch, 1).

    Raises:
        ValueError: `bins` is not a whole number >= 2.

    Example:

    >>> from mtl_zoo.metrics import StreamingAUC
    >>> metric = StreamingAUC()
    >>> metric.update_state([1.0, 0.0, 1.0, 0.0, 1.0], [0.8, 0.8, 0.6, 0.3, 0.2])
    >>> round(float(metric.result()), 4)
    0.4167
    """

    def __init__(self, name: str = "auc", bins: int = 1000, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.bins = check.check_int("bins", bins, minimum=2)
        self.positives = self.add_variable((bins,), initializer="zeros", name="positives")
        self.negatives = self.add_variable((bins,), initializer="zeros", name="negatives")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels = ops.reshape(ops.cast(y_true, self.dtype), (-1,))
        scores = ops.reshape(ops.cast(y_pred, self.dtype), (-1,))
        observed = ops.cast(ops.logical_not(ops.isnan(labels)), self.dtype)
        labels = ops.where(observed > 0, labels, 0.0)
        weights = observed
        if sample_weight is not None:
            given = ops.reshape(ops.cast(sample_weight, self.dtype), (-1,))
            weights = weights * ops.broadcast_to(given, ops.shape(labels))
        # Clipped to what float32 can tell from 0 and 1, so that both logarithms are finite.
        scores = ops.clip(scores, 1e-30, 1.0 - 6e-8)
        logits = ops.log(scores) - ops.log1p(-scores)
        share = (logits - _LOWEST_LOGIT) / (_HIGHEST_LOGIT - _LOWEST_LOGIT)
        bin_of_row = ops.cast(ops.clip(ops.floor(share * self.bins), 0, self.bins - 1), "int32")
        self.positives.assign(self.positives + ops.segment_sum(weights * labels, bin_of_row, self.bins))
        self.negatives.assign(self.negatives + ops.segment_sum(weights * (1.0 - labels), bin_of_row, self.bins))

    def result(self) -> Any:
        positives, negatives = ops.convert_to_tensor(self.positives), ops.convert_to_tensor(self.negatives)
        below = ops.cumsum(negatives) - 0.5 * negatives
        pairs = ops.sum(positives) * ops.sum(negatives)
        area = ops.sum(positives * below) / ops.where(pairs > 0, pairs, 1.0)
        return ops.where(pairs > 0, area, float("nan"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}
