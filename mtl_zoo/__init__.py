"""mtl_zoo: a model zoo for multi-task recommenders on Keras 3 and TensorFlow."""

__version__ = "0.1.0"

from mtl_zoo.features.spec import Categorical, Encoded, Numeric, Sequence
from mtl_zoo.tasks import BinaryTask, MulticlassTask, RegressionTask

__all__ = [
    "BinaryTask",
    "Categorical",
    "Encoded",
    "MulticlassTask",
    "Numeric",
    "RegressionTask",
    "Sequence",
]
