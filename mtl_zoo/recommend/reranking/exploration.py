"""Places for what the scores alone would not show."""

from __future__ import annotations

import dataclasses

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage


@register_stage("epsilon_greedy")
@dataclasses.dataclass(frozen=True)
class EpsilonGreedy(Stage):
    """Each place takes, with probability epsilon, a candidate at random of all that are left; else the next in order.

    Args:
        epsilon: In [0, 1].

    Raises:
        ValueError: `epsilon` is not in [0, 1].

    Example:

    >>> from mtl_zoo.recommend import Candidates, EpsilonGreedy, rerank
    >>> candidates = Candidates(range(100), range(100, 0, -1))
    >>> rerank(candidates, EpsilonGreedy(0.0), k=3).ids.tolist()
    [0, 1, 2]
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        check.check_number("epsilon", self.epsilon, minimum=0, maximum=1)

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        left, chosen = list(range(len(candidates))), []
        for _ in range(min(k, len(candidates))):
            explores = rng.random() < self.epsilon
            chosen.append(left.pop(int(rng.integers(len(left))) if explores else 0))
        return candidates.chosen_first(chosen)


@register_stage("thompson")
@dataclasses.dataclass(frozen=True)
class Thompson(Stage):
    """Thompson sampling: candidates in the order of one draw each from what their scores may be, N(score, deviation^2).

    What is well known keeps about its place; what is uncertain gets a chance that falls with how far its score is
    behind. The scores of the candidates become the draws.

    Args:
        column: The column of standard deviations >= 0, in the unit of the scores.
        scale: What deviations are multiplied by; 0 explores nothing.

    Raises:
        ValueError: `scale` is negative; the column is missing, or a deviation is negative.

    Example:

    >>> from mtl_zoo.recommend import Candidates, Thompson, rerank
    >>> candidates = Candidates(["known", "new"], [0.5, 0.4], {"deviation": [0.0, 0.3]})
    >>> firsts = [rerank(candidates, Thompson("deviation"), k=1, seed=seed).ids[0] for seed in range(200)]
    >>> 50 < sum(first == "new" for first in firsts) < 100  # 37 % of the draws of "new" are above .5
    True

    Reference: Thompson, On the likelihood that one unknown probability exceeds another in view of the evidence of two
    samples, Biometrika 25, 1933, https://doi.org/10.1093/biomet/25.3-4.285
    """

    column: str
    scale: float = 1.0

    def __post_init__(self) -> None:
        check.check_number("scale", self.scale, minimum=0)

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        deviations = candidates.numbers(self.column)
        if (deviations < 0).any():
            bad = check.sample_values(deviations[deviations < 0])
            raise ValueError(f"`columns[{self.column!r}]` must hold deviations >= 0. Received: {bad}")
        draws = rng.standard_normal(len(candidates))
        return candidates.rescored(candidates.scores + self.scale * deviations * draws)
