from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo.metrics.streaming_auc import StreamingAUC


@keras.saving.register_keras_serializable(package="mtl_zoo")
class AffinityAUC(StreamingAUC):
    """`StreamingAUC` of scores that may be any numbers, such as inner products: of `1/2 + arctan(s) / pi`.

    Args:
        name: Name in the logs.
        bins: As in `StreamingAUC`. Default: 10000, since scores within -1..1 fall into a tenth of them.
        dtype: Of the counts.

    Example:

    >>> from mtl_zoo.metrics import AffinityAUC
    >>> metric = AffinityAUC()
    >>> metric.update_state([1.0, 0.0, 1.0], [0.9, -0.5, -0.9])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name: str = "auc", bins: int = 10_000, dtype: Any = None):
        super().__init__(name, bins, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(y_true, 0.5 + ops.arctan(ops.cast(y_pred, self.dtype)) / np.pi, sample_weight)
