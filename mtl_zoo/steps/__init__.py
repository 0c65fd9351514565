"""Training steps: what happens to a model's weights on one batch."""

from mtl_zoo.losses.batch import Batch
from mtl_zoo.steps._base import STEPS, Outcome, Step, as_step, list_steps, register_step
from mtl_zoo.steps.balanced import BalancedStep
from mtl_zoo.steps.maml import MAML
from mtl_zoo.steps.plain import PlainStep
from mtl_zoo.steps.reevaluated import ReevaluatedStep
from mtl_zoo.steps.reptile import Reptile

__all__ = [
    "MAML",
    "STEPS",
    "BalancedStep",
    "Batch",
    "Outcome",
    "PlainStep",
    "ReevaluatedStep",
    "Reptile",
    "Step",
    "as_step",
    "list_steps",
    "register_step",
]
