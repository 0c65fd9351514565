"""What a user would run before any network: constant rate, popularity, linear model, gradient boosting."""

from mtl_zoo.benchmark.baselines._base import (
    BASELINES,
    Baseline,
    Fitted,
    Predictor,
    Problem,
    fit_baseline,
    list_baselines,
    register_baseline,
)
from mtl_zoo.benchmark.baselines._columns import Columns, columns_of
from mtl_zoo.benchmark.baselines.boosting import Boosting
from mtl_zoo.benchmark.baselines.constant import Constant
from mtl_zoo.benchmark.baselines.linear import Linear
from mtl_zoo.benchmark.baselines.popularity import Popularity

__all__ = [
    "BASELINES",
    "Baseline",
    "Boosting",
    "Columns",
    "Constant",
    "Fitted",
    "Linear",
    "Popularity",
    "Predictor",
    "Problem",
    "columns_of",
    "fit_baseline",
    "list_baselines",
    "register_baseline",
]
