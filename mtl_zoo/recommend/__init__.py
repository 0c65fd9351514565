"""From scores to recommendations: metrics of ranked lists, fusion of tasks' scores, re-ranking."""

from mtl_zoo.recommend.evaluate_ranking import evaluate_ranking
from mtl_zoo.recommend.fusion import (
    Borda,
    Formula,
    Fusion,
    MonotoneNetwork,
    Powers,
    ReciprocalRank,
    WeightedSum,
    fusion_from_config,
    list_fusions,
    register_fusion,
)
from mtl_zoo.recommend.list_metrics import (
    calibration,
    catalogue_coverage,
    gini,
    group_lift,
    intra_list_diversity,
    novelty,
    personalisation,
    popularity_lift,
)
from mtl_zoo.recommend.ranking_metrics import RankingResult, ranking_metrics
from mtl_zoo.recommend.tuning import ScoredLists, TunedFusion, tune_fusion

__all__ = [
    "Borda",
    "Formula",
    "Fusion",
    "MonotoneNetwork",
    "Powers",
    "RankingResult",
    "ReciprocalRank",
    "ScoredLists",
    "TunedFusion",
    "WeightedSum",
    "calibration",
    "catalogue_coverage",
    "evaluate_ranking",
    "fusion_from_config",
    "gini",
    "group_lift",
    "intra_list_diversity",
    "list_fusions",
    "novelty",
    "personalisation",
    "popularity_lift",
    "ranking_metrics",
    "register_fusion",
    "tune_fusion",
]
