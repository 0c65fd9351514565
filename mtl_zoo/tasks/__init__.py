"""What a model predicts: one object a task. A kind of task is one file here, and owns all that is its own."""

from mtl_zoo.tasks._bias import Bias
from mtl_zoo.tasks._binary_losses import Focal, LabelSmoothing, LogitAdjustment
from mtl_zoo.tasks._ranking_losses import JRC, Listwise, Pairwise
from mtl_zoo.tasks.base import TASKS, ExactMetric, Task, as_tasks, fit_tasks, fitted_like, label_names, task_from_config
from mtl_zoo.tasks.binary import BinaryTask
from mtl_zoo.tasks.contrastive import ContrastiveTask
from mtl_zoo.tasks.mean_teacher import MeanTeacherTask
from mtl_zoo.tasks.multiclass import MulticlassTask
from mtl_zoo.tasks.next_item import NextItemTask
from mtl_zoo.tasks.pseudo_label import PseudoLabelTask
from mtl_zoo.tasks.reconstruction import ReconstructionTask
from mtl_zoo.tasks.regression import RegressionTask
from mtl_zoo.tasks.retrieval import RetrievalTask

__all__ = [
    "TASKS",
    "Bias",
    "BinaryTask",
    "ContrastiveTask",
    "ExactMetric",
    "Focal",
    "JRC",
    "LabelSmoothing",
    "Listwise",
    "LogitAdjustment",
    "MeanTeacherTask",
    "MulticlassTask",
    "NextItemTask",
    "Pairwise",
    "PseudoLabelTask",
    "ReconstructionTask",
    "RegressionTask",
    "RetrievalTask",
    "Task",
    "as_tasks",
    "fit_tasks",
    "fitted_like",
    "label_names",
    "task_from_config",
]
