"""Indexes of items by vector, behind one interface, a kind a file."""

from mtl_zoo.recommend.indexes._base import Index, list_indexes, register_index
from mtl_zoo.recommend.indexes.exact import ExactIndex
from mtl_zoo.recommend.indexes.faiss_index import FaissIndex
from mtl_zoo.recommend.indexes.tensorflow_recommenders_index import TensorFlowRecommendersIndex

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Index",
    "TensorFlowRecommendersIndex",
    "list_indexes",
    "register_index",
]
