"""Training: callbacks that measure exactly."""

from mtl_zoo.training.callbacks import ExactValidation

__all__ = ["ExactValidation"]
