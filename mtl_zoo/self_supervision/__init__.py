"""What tasks without a label make of a batch: one objective a file, which models ask in training alone."""

from mtl_zoo.self_supervision._base import OBJECTIVES, Objective, Setting, make_objective, register_objective
from mtl_zoo.self_supervision.contrast import Contrast
from mtl_zoo.self_supervision.mean_teacher import MeanTeacher
from mtl_zoo.self_supervision.next_item import NextItem
from mtl_zoo.self_supervision.pseudo_labels import PseudoLabels
from mtl_zoo.self_supervision.reconstruction import Reconstruction

__all__ = [
    "OBJECTIVES",
    "Contrast",
    "MeanTeacher",
    "NextItem",
    "Objective",
    "PseudoLabels",
    "Reconstruction",
    "Setting",
    "make_objective",
    "register_objective",
]
