"""Scores: how they leave a model, in this process and in the forms that run without this package.

Models call this room, so nothing here imports one.
"""

from mtl_zoo.serving.exporting import export, export_serving, list_formats, load_exported
from mtl_zoo.serving.formats import FORMATS, Format, register_format
from mtl_zoo.serving.prepared import PreparedCandidates
from mtl_zoo.serving.scorer import Scorer, make_scorer
from mtl_zoo.serving.scoring import Scoring

__all__ = [
    "FORMATS",
    "Format",
    "PreparedCandidates",
    "Scorer",
    "Scoring",
    "export",
    "export_serving",
    "list_formats",
    "load_exported",
    "make_scorer",
    "register_format",
]
