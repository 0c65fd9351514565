"""The catalogue: one model a file."""

from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._registry import ModelInfo, create_model, list_models, model_info, register_model
from mtl_zoo.models.cross_stitch import CrossStitch
from mtl_zoo.models.esmm import ESMM
from mtl_zoo.models.mmoe import MMoE
from mtl_zoo.models.shared_bottom import SharedBottom
from mtl_zoo.models.single_task import SingleTask

__all__ = [
    "ESMM",
    "CrossStitch",
    "MMoE",
    "ModelInfo",
    "MultiTaskModel",
    "SharedBottom",
    "SingleTask",
    "create_model",
    "list_models",
    "model_info",
    "register_model",
]
