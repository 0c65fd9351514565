"""The kinds of features, by their names. A new kind is its file, its test and a line here.

`infer` asks the kinds in this order what a column is.
"""

from mtl_zoo.features.base import (
    FEATURES,
    Feature,
    as_features,
    feature_from_config,
    features_from_config,
    features_to_config,
    require_fitted,
)
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID
from mtl_zoo.features.vector import Vector  # isort: split

from mtl_zoo.features.sequence import Sequence  # isort: split

from mtl_zoo.features.datetime import Datetime  # isort: split

from mtl_zoo.features.categorical import Categorical  # isort: split

from mtl_zoo.features.numeric import Numeric  # isort: split

from mtl_zoo.features.encoded import Encoded  # isort: split

from mtl_zoo.features.entity_sequence import EntitySequence
from mtl_zoo.features.image import Image
from mtl_zoo.features.neighbours import Neighbours
from mtl_zoo.features.text import Text

__all__ = [
    "FEATURES",
    "FIRST_ID",
    "MISSING_ID",
    "UNKNOWN_ID",
    "Categorical",
    "Datetime",
    "Encoded",
    "EntitySequence",
    "Feature",
    "Image",
    "Neighbours",
    "Numeric",
    "Sequence",
    "Text",
    "Vector",
    "as_features",
    "feature_from_config",
    "features_from_config",
    "features_to_config",
    "require_fitted",
]
