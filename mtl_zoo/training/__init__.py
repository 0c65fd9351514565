"""Training: callbacks that measure exactly, rules for what the best epoch is, checkpoints, clusters."""

from mtl_zoo._allocator import keep_freed_memory
from mtl_zoo.training.balancing_callback import BalancingLogger
from mtl_zoo.training.callbacks import ExactValidation
from mtl_zoo.training.checkpoints import Checkpoints
from mtl_zoo.training.distillation import soft_labels
from mtl_zoo.training.gate_callback import GateLogger
from mtl_zoo.training.launch import Launched, launch
from mtl_zoo.training.parameter_server import ParameterServerTrainer, SideEvaluation
from mtl_zoo.training.selection import ParetoImprovement, PrimaryTask, WeightedScore

__all__ = [
    "BalancingLogger",
    "Checkpoints",
    "ExactValidation",
    "GateLogger",
    "Launched",
    "ParameterServerTrainer",
    "ParetoImprovement",
    "PrimaryTask",
    "SideEvaluation",
    "WeightedScore",
    "keep_freed_memory",
    "launch",
    "soft_labels",
]
