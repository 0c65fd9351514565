"""Scores raised for what is new, or for what the business wants shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._types import Config
from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage


def _raised(candidates: Candidates, factors: np.ndarray) -> Candidates:
    if len(candidates) and candidates.scores.min() < 0:
        raise ValueError(
            f"`scores` must be >= 0 to be multiplied. Received: a smallest score of {candidates.scores.min():g}"
        )
    return candidates.rescored(candidates.scores * factors)


@register_stage("freshness")
@dataclasses.dataclass(frozen=True)
class Freshness(Stage):
    """Multiplies scores by what is left of a bonus for new items, `1 + bonus 2^(-age / half_life)`.

    Args:
        column: The column of ages, numbers >= 0 in the unit of `half_life`.
        half_life: The age at which half of the bonus is left.
        bonus: Of an item of age 0: 0.5 raises its score by half.

    Raises:
        ValueError: `half_life` or `bonus` is not > 0; the column is missing, or an age or a score is negative.

    Example:

    >>> from mtl_zoo.recommend import Candidates, Freshness, rerank
    >>> candidates = Candidates(["old", "new"], [0.5, 0.4], {"days": [70, 0]})
    >>> rerank(candidates, Freshness("days", half_life=7, bonus=0.5), k=2).ids.tolist()
    ['new', 'old']
    """

    column: str
    half_life: float
    bonus: float = 0.2

    def __post_init__(self) -> None:
        check.check_number("half_life", self.half_life, above=0)
        check.check_number("bonus", self.bonus, above=0)

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        ages = candidates.numbers(self.column)
        if (ages < 0).any():
            bad = check.sample_values(ages[ages < 0])
            raise ValueError(f"`columns[{self.column!r}]` must hold ages >= 0. Received: {bad}")
        return _raised(candidates, 1 + self.bonus * np.exp2(-ages / self.half_life))


@register_stage("boost")
@dataclasses.dataclass(frozen=True)
class Boost(Stage):
    """Multiplies scores by a factor for some values of a column: a campaign, a margin, a category to hold back.

    Args:
        column: The column.
        factors: A factor >= 0 by value of the column, or pairs of both; all other values keep their scores.

    Raises:
        ValueError: A factor is negative or there are none; the column is missing; a score is negative.

    Example:

    >>> from mtl_zoo.recommend import Boost, Candidates, rerank
    >>> candidates = Candidates([1, 2], [0.5, 0.4], {"seller": ["x", "ours"]})
    >>> rerank(candidates, Boost("seller", {"ours": 1.5}), k=1).ids.tolist()
    [2]
    """

    column: str
    factors: Mapping[Any, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", dict(self.factors))
        if not self.factors:
            raise ValueError("`factors` must name at least one value. Received: factors={}")
        for value, factor in self.factors.items():
            check.check_number(f"factors[{value!r}]", factor, minimum=0)

    def get_config(self) -> Config:
        # The keys of an object in JSON are strings.
        return {**super().get_config(), "factors": [list(pair) for pair in self.factors.items()]}

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        values = candidates.column(self.column).tolist()
        return _raised(candidates, np.array([self.factors.get(value, 1.0) for value in values], "float64"))
