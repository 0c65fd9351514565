"""Fusion of tasks' scores into one ranking score, a kind a file."""

from mtl_zoo.recommend.fusion._base import Fusion, fusion_from_config, list_fusions, register_fusion
from mtl_zoo.recommend.fusion.formula import Formula
from mtl_zoo.recommend.fusion.monotone import MonotoneNetwork
from mtl_zoo.recommend.fusion.powers import Powers
from mtl_zoo.recommend.fusion.rank_fusion import Borda, ReciprocalRank
from mtl_zoo.recommend.fusion.weighted_sum import WeightedSum

__all__ = [
    "Borda",
    "Formula",
    "Fusion",
    "MonotoneNetwork",
    "Powers",
    "ReciprocalRank",
    "WeightedSum",
    "fusion_from_config",
    "list_fusions",
    "register_fusion",
]
