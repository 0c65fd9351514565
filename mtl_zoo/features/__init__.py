"""Features: what a model is fed, from the column of a table to the array of a batch."""

from mtl_zoo.features.batching import make_batches

__all__ = ["make_batches"]
