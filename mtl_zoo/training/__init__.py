"""Training: callbacks that measure exactly, checkpoints, clusters."""

from mtl_zoo.training.balancing_callback import BalancingLogger
from mtl_zoo.training.callbacks import ExactValidation
from mtl_zoo.training.checkpoints import Checkpoints
from mtl_zoo.training.gate_callback import GateLogger
from mtl_zoo.training.launch import Launched, launch

__all__ = ["BalancingLogger", "Checkpoints", "ExactValidation", "GateLogger", "Launched", "launch"]
