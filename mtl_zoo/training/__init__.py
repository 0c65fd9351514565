"""Training: callbacks that measure exactly, rules for what the best epoch is, checkpoints, clusters."""

from mtl_zoo._allocator import keep_freed_memory
from mtl_zoo.training.balancing_callback import BalancingLogger
from mtl_zoo.training.callbacks import ExactValidation
from mtl_zoo.training.checkpoints import Checkpoints
from mtl_zoo.training.distillation import distill
from mtl_zoo.training.gate_callback import GateLogger
from mtl_zoo.training.generate_rows import SMOTENC, WGANGP, generate_rows
from mtl_zoo.training.launch import Launched, launch
from mtl_zoo.training.parameter_server import ParameterServerTrainer, SideEvaluation
from mtl_zoo.training.pruning import Pruned, hold_zeros, prune, save_compressed
from mtl_zoo.training.selection import ParetoImprovement, PrimaryTask, WeightedScore
from mtl_zoo.training.soft_labels import soft_labels
from mtl_zoo.training.trackers import MLflowLogger, TensorBoardLogger, Tracker, WandbLogger, write_projector

__all__ = [
    "BalancingLogger",
    "Checkpoints",
    "ExactValidation",
    "GateLogger",
    "Launched",
    "MLflowLogger",
    "ParameterServerTrainer",
    "ParetoImprovement",
    "PrimaryTask",
    "Pruned",
    "SMOTENC",
    "SideEvaluation",
    "WGANGP",
    "TensorBoardLogger",
    "Tracker",
    "WandbLogger",
    "WeightedScore",
    "distill",
    "generate_rows",
    "hold_zeros",
    "keep_freed_memory",
    "launch",
    "prune",
    "save_compressed",
    "soft_labels",
    "write_projector",
]
