"""Keras metrics shown while training; exact ones for reporting are in `mtl_zoo.evaluation`."""

from mtl_zoo.metrics.affinity_auc import AffinityAUC
from mtl_zoo.metrics.streaming_auc import StreamingAUC

__all__ = ["AffinityAUC", "StreamingAUC"]
