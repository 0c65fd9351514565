"""Export formats, one a file."""

from mtl_zoo.serving.formats._base import FORMATS, Format, register_format
from mtl_zoo.serving.formats.saved_model import SavedModel

__all__ = ["FORMATS", "Format", "SavedModel", "register_format"]
