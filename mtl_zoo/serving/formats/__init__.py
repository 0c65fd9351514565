"""Export formats, one a file."""

from mtl_zoo.serving.formats._base import FORMATS, Format, make_format, register_format
from mtl_zoo.serving.formats.litert import LiteRT
from mtl_zoo.serving.formats.onnx import Onnx
from mtl_zoo.serving.formats.saved_model import SavedModel

__all__ = ["FORMATS", "Format", "LiteRT", "Onnx", "SavedModel", "make_format", "register_format"]
