"""Features: what a model is fed, from the column of a table to the array of a batch."""

from mtl_zoo.features.batching import make_batches
from mtl_zoo.features.transform import FeatureTransform

__all__ = ["FeatureTransform", "make_batches"]
