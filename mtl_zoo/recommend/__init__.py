"""From scores to recommendations: metrics of ranked lists, fusion of tasks' scores, re-ranking."""

from mtl_zoo.recommend.evaluate_ranking import evaluate_ranking
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

__all__ = [
    "RankingResult",
    "calibration",
    "catalogue_coverage",
    "evaluate_ranking",
    "gini",
    "group_lift",
    "intra_list_diversity",
    "novelty",
    "personalisation",
    "popularity_lift",
    "ranking_metrics",
]
