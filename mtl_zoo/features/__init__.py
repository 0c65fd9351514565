"""Features: what a model is fed, from the column of a table to the array of a batch."""

from mtl_zoo.features.augmentation import Synonyms, augment_texts
from mtl_zoo.features.batching import make_batches
from mtl_zoo.features.cache import CachedTable, open_cache, write_cache
from mtl_zoo.features.episodes import make_episodes
from mtl_zoo.features.propensity import (
    doubly_robust_labels,
    learn_propensities,
    naive_bayes_propensities,
    propensity_weights,
)
from mtl_zoo.features.sources import JointSources, Source
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.features.transform import FeatureTransform

__all__ = [
    "CachedTable",
    "FeatureTransform",
    "JointSources",
    "Source",
    "Synonyms",
    "TableStream",
    "augment_texts",
    "doubly_robust_labels",
    "learn_propensities",
    "make_batches",
    "make_episodes",
    "naive_bayes_propensities",
    "open_cache",
    "propensity_weights",
    "write_cache",
]
