"""Maximal marginal relevance."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage


@register_stage("mmr")
@dataclasses.dataclass(frozen=True)
class MMR(Stage):
    """Maximal marginal relevance: each place takes what is relevant and unlike all that stands before it.

        next = argmax_i  t r_i - (1 - t) max_(j chosen) cos(v_i, v_j)

    r are the scores, brought to [0, 1] within the list (all 1 where they are equal). Each step updates one number a
    candidate, so k places of n candidates take O(n k width).

    Args:
        vectors: The column of vectors.
        trade_off: t in [0, 1]: 1 keeps the order of the scores, 0 looks at diversity alone after the first.

    Raises:
        ValueError: `trade_off` is not in [0, 1]; the column is missing or holds no vectors.

    Example:

    >>> from mtl_zoo.recommend import MMR, Candidates, rerank
    >>> candidates = Candidates([1, 2, 3], [0.9, 0.8, 0.1], {"vector": [[1, 0], [1, 0], [0, 1]]})
    >>> rerank(candidates, MMR("vector", trade_off=0.3), k=2).ids.tolist()
    [1, 3]

    Reference: Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries, SIGIR 1998, https://doi.org/10.1145/290941.291025
    """

    diversifies: ClassVar[bool] = True
    vectors: str
    trade_off: float = 0.7

    def __post_init__(self) -> None:
        check.check_number("trade_off", self.trade_off, minimum=0, maximum=1)

    def with_diversity(self, diversity: float) -> MMR:
        return dataclasses.replace(self, trade_off=1 - check.check_number("diversity", diversity, minimum=0, maximum=1))

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        if not len(candidates):
            return candidates
        unit, relevance = candidates.unit_vectors(self.vectors), scaled(candidates.scores)
        left = self.trade_off * relevance
        likeness = np.full(len(candidates), -np.inf)
        chosen = [int(np.argmax(relevance))]
        for _ in range(min(k, len(candidates)) - 1):
            left[chosen[-1]] = -np.inf
            np.maximum(likeness, unit @ unit[chosen[-1]], out=likeness)
            chosen.append(int(np.argmax(left - (1 - self.trade_off) * likeness)))
        return candidates.chosen_first(chosen)


def scaled(scores: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] by the smallest and the largest; 1 where all are equal."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)
