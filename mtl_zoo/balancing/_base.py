"""What a method imports: the kinds of methods, one of which it extends, and a few helpers."""

from mtl_zoo.balancing._method import SMALL_LOSS, TINY, Balancing, check_by_loss, masked_softmax
from mtl_zoo.balancing.kinds.direction import GradientBalancing
from mtl_zoo.balancing.kinds.gram import GramBalancing
from mtl_zoo.balancing.kinds.losses import LossBalancing
from mtl_zoo.balancing.kinds.representation import RepresentationBalancing

__all__ = [
    "SMALL_LOSS",
    "TINY",
    "Balancing",
    "GradientBalancing",
    "GramBalancing",
    "LossBalancing",
    "RepresentationBalancing",
    "check_by_loss",
    "masked_softmax",
]
