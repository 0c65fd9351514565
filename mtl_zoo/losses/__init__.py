"""Losses of tasks: from logits, by row; one place masks and normalises them."""

from mtl_zoo.losses.batch import Batch
from mtl_zoo.losses.observed_mean import observed_mean
from mtl_zoo.losses.task_loss import TaskLoss

__all__ = ["Batch", "TaskLoss", "observed_mean"]
