"""A determinantal point process, whose likeliest set is found greedily."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check
from mtl_zoo.recommend.reranking._base import Candidates, Stage, register_stage
from mtl_zoo.recommend.reranking.mmr import scaled

# A candidate that adds less than this share of a volume lies, to rounding, in the span of those that are chosen.
_NOTHING = 1e-10
# A trade-off of 1 would divide by zero.
_LARGEST = 0.999


@register_stage("dpp")
@dataclasses.dataclass(frozen=True)
class DPP(Stage):
    """The list with a large determinant of its kernel: relevant items whose vectors span a large volume.

        L_ij = q_i S_ij q_j,   q_i = exp(a r_i),   a = t / (2 (1 - t)),   S_ij = (1 + cos(v_i, v_j)) / 2
        (1 - t) ln det L_Y = t sum_(i in Y) r_i + (1 - t) ln det S_Y

    r are the scores, brought to [0, 1] within the list. Each place takes the item that raises the determinant most; the
    factors of a Cholesky decomposition are kept, so a step costs one product with the rows before it, O(n k^2) and
    O(n k width) for k places of n candidates, and the kernel is never written down. Where all that are left lie in the
    span of those chosen, the best scores follow. Vectors of zeros count as like each other.

    Args:
        vectors: The column of vectors.
        trade_off: t in [0, 1): larger counts scores more.

    Raises:
        ValueError: `trade_off` is not in [0, 1); the column is missing or holds no vectors.

    Example:

    >>> from mtl_zoo.recommend import DPP, Candidates, rerank
    >>> candidates = Candidates([1, 2, 3], [0.9, 0.8, 0.1], {"vector": [[1, 0], [1, 0.1], [0, 1]]})
    >>> rerank(candidates, DPP("vector", trade_off=0.3), k=2).ids.tolist()
    [1, 3]

    Reference: Chen, Zhang and Zhou, Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation
    Diversity, NeurIPS 2018, https://arxiv.org/abs/1709.05135
    """

    diversifies: ClassVar[bool] = True
    vectors: str
    trade_off: float = 0.7

    def __post_init__(self) -> None:
        check.check_number("trade_off", self.trade_off, minimum=0, below=1)

    def with_diversity(self, diversity: float) -> DPP:
        diversity = check.check_number("diversity", diversity, minimum=0, maximum=1)
        return dataclasses.replace(self, trade_off=min(1 - diversity, _LARGEST))

    def factors(self, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """q of shape (n,), and vectors whose products are S."""
        unit = candidates.unit_vectors(self.vectors)
        strength = self.trade_off / (2 * (1 - self.trade_off))
        # (1 + cos) / 2 is the product of vectors with one more coordinate.
        lifted = np.concatenate([np.ones((len(unit), 1)), unit], axis=1) / np.sqrt(2)
        # Of a vector of zeros the product with itself must be 1 too.
        rest = np.sqrt(np.maximum(1 - (lifted**2).sum(axis=1), 0))
        quality = np.exp(strength * (scaled(candidates.scores) - 1)) if len(unit) else np.zeros(0)
        return quality, np.concatenate([lifted, (rest * (rest > 1e-8))[:, None]], axis=1)

    def __call__(self, candidates: Candidates, k: int, rng: np.random.Generator) -> Candidates:
        if not len(candidates):
            return candidates
        quality, vectors = self.factors(candidates)
        vectors = quality[:, None] * vectors
        return candidates.chosen_first(_greedy((vectors**2).sum(axis=1), lambda row: vectors @ vectors[row], k))


def _greedy(diagonal: np.ndarray, row_of: Callable[[int], np.ndarray], k: int) -> list[int]:
    """Rows that raise the determinant of a kernel most, one after the other."""
    places = min(k, len(diagonal))
    factors = np.zeros((places, len(diagonal)))
    added = diagonal.copy()
    smallest = _NOTHING * added
    chosen: list[int] = []
    for place in range(places):
        best = int(np.argmax(added))
        if not added[best] > smallest[best]:
            break
        row = row_of(best) - factors[:place].T @ factors[:place, best]
        factors[place] = row / np.sqrt(added[best])
        added = added - factors[place] ** 2
        added[best] = -np.inf
        added[(added <= smallest) & (added > -np.inf)] = 0.0
        chosen.append(best)
    return chosen


def greedy_dpp(kernel: ArrayLike, k: int) -> np.ndarray:
    """The rows that a greedy search for the largest determinant of a kernel takes, in order, by fast updates.

    With `c_i` row i of a Cholesky decomposition over the chosen and `d_i^2` what i adds to the determinant:

        j = argmax d_i^2,   e_i = (L_ji - c_j c_i) / d_j,   c_i = (c_i, e_i),   d_i^2 = d_i^2 - e_i^2

    Args:
        kernel: Symmetric and positive semidefinite (the latter is not checked), of shape (n, n).
        k: How many; fewer come back where no row adds to the determinant any more.

    Raises:
        ValueError: The kernel is not square and symmetric; `k` is not a whole number >= 1.

    Example:

    >>> from mtl_zoo.recommend import greedy_dpp
    >>> greedy_dpp([[1.0, 0.9, 0.0], [0.9, 1.1, 0.0], [0.0, 0.0, 0.5]], k=2).tolist()
    [1, 2]

    Reference: Chen, Zhang and Zhou, NeurIPS 2018, algorithm 1, https://arxiv.org/abs/1709.05135
    """
    matrix, k = np.asarray(kernel, "float64"), check.check_int("k", k)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
        raise ValueError(f"`kernel` must be symmetric, of shape (n, n). Received: shape {matrix.shape}")
    return np.array(_greedy(np.diagonal(matrix).copy(), lambda row: matrix[row], k), "int64")
