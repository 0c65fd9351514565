"""The sum of tasks' scores, weighted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtl_zoo.recommend.fusion._base import Fusion, Suggest, checked_numbers, register_fusion, total
from mtl_zoo.recommend.fusion._math import Math


@register_fusion("weighted_sum")
@dataclasses.dataclass(frozen=True)
class WeightedSum(Fusion):
    """The weighted sum of scores, `sum_k w_k s_k`: the expected value if each event is worth its weight.

    Args:
        weights: Any numbers by task; a negative one lowers what a task scores high (a complaint).
        floors: A smallest score by task; candidates under it come behind. Default: none.

    Raises:
        ValueError: No weights, or weights that are not finite numbers; see `Fusion` for scores.

    Example:

    >>> from mtl_zoo.recommend import WeightedSum
    >>> fusion = WeightedSum({"click": 1, "conversion": 10}, floors={"click": 0.2})
    >>> fusion({"click": [0.5, 0.1, 0.3], "conversion": [0.0, 0.4, 0.1]}).round(2).tolist()
    [0.5, -1.3, 1.3]
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", checked_numbers("weights", self.weights))

    def tasks(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def fuse(self, math: Math, scores: Mapping[str, Any]) -> Any:
        return total([weight * scores[name] for name, weight in self.weights.items()])

    @classmethod
    def suggested(cls, suggest: Suggest, typical: Mapping[str, float]) -> WeightedSum:
        # In units of each task's mean score, so that rare events are within reach.
        drawn = {name: suggest(f"weight_{name}", 1e-3, 1.0, log=True) for name in typical}
        return cls({name: weight / max(abs(typical[name]), 1e-12) for name, weight in drawn.items()})
