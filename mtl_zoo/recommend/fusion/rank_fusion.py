"""Fusions of ranks: what each task scores counts by its place in the list alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo.recommend.fusion._base import Fusion, Suggest, checked_numbers, register_fusion, total
from mtl_zoo.recommend.fusion._math import Math


@dataclasses.dataclass(frozen=True)
class _RankFusion(Fusion):
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", checked_numbers("weights", self.weights))

    def tasks(self) -> tuple[str, ...]:
        return tuple(self.weights)

    @classmethod
    def suggested(cls, suggest: Suggest, typical: Mapping[str, float]) -> Fusion:
        return cls({name: suggest(f"weight_{name}", 0.0, 1.0) for name in typical})


@register_fusion("reciprocal_rank")
@dataclasses.dataclass(frozen=True)
class ReciprocalRank(_RankFusion):
    """Reciprocal rank fusion, `sum_k w_k / (constant + rank_k)`, with ranks from 1 within a list.

    Equal scores share the mean of their ranks, so the order in which candidates come has no effect.

    Args:
        weights: Numbers by task.
        constant: How little the first places stand out; 0 or more.
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: No weights, or weights that are not finite; `constant` is negative; see `Fusion` for scores.

    Example:

    >>> from mtl_zoo.recommend import ReciprocalRank
    >>> fusion = ReciprocalRank({"click": 1, "conversion": 1}, constant=0)
    >>> fusion({"click": [0.9, 0.5], "conversion": [0.2, 0.1]}).tolist()
    [2.0, 1.0]

    Reference: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods, SIGIR 2009, https://doi.org/10.1145/1571941.1572114
    """

    constant: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("constant", self.constant, minimum=0)

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        return total([weight / (self.constant + math.ranks(scores[name])) for name, weight in self.weights.items()])


@register_fusion("borda")
@dataclasses.dataclass(frozen=True)
class Borda(_RankFusion):
    """Borda's count, `sum_k w_k (n - rank_k) / (n - 1)`: the share of the list's others that each task puts behind.

    n is the size of a candidate's list; in a list of one it is 0. Equal scores share the mean of their ranks.

    Args:
        weights: Numbers by task.
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: No weights, or weights that are not finite; see `Fusion` for scores.

    Example:

    >>> from mtl_zoo.recommend import Borda
    >>> scores = {"click": [0.9, 0.5, 0.1, 0.7], "conversion": [0.1, 0.2, 0.3, 0.4]}
    >>> Borda({"click": 2, "conversion": 1})(scores, groups=["ann", "ann", "ann", "bob"]).tolist()
    [2.0, 1.5, 1.0, 0.0]

    Reference: Aslam and Montague, Models for metasearch, SIGIR 2001, https://doi.org/10.1145/383952.384007
    """

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        parts = []
        for name, weight in self.weights.items():
            size = math.size(scores[name])
            parts.append(weight * (size - math.ranks(scores[name])) / math.maximum(size - 1, size * 0 + 1))
        return total(parts)
