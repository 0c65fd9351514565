"""Search over hyperparameters: spaces, and `tune`, which tries them on the validation rows."""

from mtl_zoo._space import Choice, FloatRange, IntRange
from mtl_zoo.search.result import Tuned
from mtl_zoo.search.settings import default_space
from mtl_zoo.search.tune import tune

__all__ = ["Choice", "FloatRange", "IntRange", "Tuned", "default_space", "tune"]
