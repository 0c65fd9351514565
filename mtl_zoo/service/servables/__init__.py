"""What can be served, one kind a file."""

from mtl_zoo.service.servables._base import SERVABLES, Servable, kind_in, load_servable, register_servable
from mtl_zoo.service.servables.keras_model import KerasModel
from mtl_zoo.service.servables.recommender import SavedRecommender
from mtl_zoo.service.servables.saved_model import SavedModelServable

__all__ = [
    "KerasModel",
    "SERVABLES",
    "SavedRecommender",
    "SavedModelServable",
    "Servable",
    "kind_in",
    "load_servable",
    "register_servable",
]
