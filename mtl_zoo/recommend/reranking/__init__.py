"""Re-ranking: stages that reorder one user's candidates, and what diversity costs."""

from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage, rerank, stage_from_config
from mtl_zoo.recommend.reranking.boosts import Boost, Freshness
from mtl_zoo.recommend.reranking.caps import CategoryCap
from mtl_zoo.recommend.reranking.curve import diversity_curve, draw_diversity_curve, plot_diversity_curve
from mtl_zoo.recommend.reranking.dpp import DPP, greedy_dpp
from mtl_zoo.recommend.reranking.exploration import EpsilonGreedy, Thompson
from mtl_zoo.recommend.reranking.mmr import MMR

__all__ = [
    "DPP",
    "MMR",
    "Boost",
    "Candidates",
    "CategoryCap",
    "EpsilonGreedy",
    "Freshness",
    "Stage",
    "Thompson",
    "diversity_curve",
    "draw_diversity_curve",
    "greedy_dpp",
    "plot_diversity_curve",
    "register_stage",
    "rerank",
    "stage_from_config",
]
