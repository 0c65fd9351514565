"""Exports: pictures of models, and what `mtl_zoo.serving` writes and answers with."""

from mtl_zoo.export.few_shot import FewShotScorer
from mtl_zoo.export.picture import draw_model
from mtl_zoo.export.quantization import Quantized, quantize
from mtl_zoo.serving import export, export_serving, list_formats, load_exported, make_scorer

__all__ = [
    "FewShotScorer",
    "Quantized",
    "draw_model",
    "export",
    "export_serving",
    "list_formats",
    "load_exported",
    "make_scorer",
    "quantize",
]
