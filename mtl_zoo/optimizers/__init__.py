"""Optimizers that, for an embedding table, touch only the rows of the batch."""

from mtl_zoo.optimizers._resolve import OPTIMIZER_NAMES, as_optimizer, updates_rows
from mtl_zoo.optimizers.lazy_adagrad import LazyAdagrad
from mtl_zoo.optimizers.lazy_adam import LazyAdam
from mtl_zoo.optimizers.lazy_ftrl import LazyFtrl
from mtl_zoo.optimizers.lazy_sgd import LazySGD
from mtl_zoo.optimizers.row_wise_adagrad import RowWiseAdagrad
from mtl_zoo.optimizers.sparse_loss_scale_optimizer import SparseLossScaleOptimizer
from mtl_zoo.optimizers.split_optimizer import SplitOptimizer

__all__ = [
    "OPTIMIZER_NAMES",
    "LazyAdagrad",
    "LazyAdam",
    "LazyFtrl",
    "LazySGD",
    "RowWiseAdagrad",
    "SparseLossScaleOptimizer",
    "SplitOptimizer",
    "as_optimizer",
    "updates_rows",
]
