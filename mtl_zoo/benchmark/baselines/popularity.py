from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.baselines._base import Baseline, Predictor, Problem, register_baseline
from mtl_zoo.benchmark.baselines._columns import Columns


@register_baseline("popularity")
@dataclasses.dataclass(frozen=True)
class Popularity(Baseline):
    """The label's rate among the training rows with the same value of one column: of the item, say.

        score(v) = (sum of labels with v + m * mean) / (rows with v + m)

    The column is the one whose rates have the best score on the validation rows. A value that is new has the mean.

    Args:
        smoothing: `m`, how many rows the mean counts as.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Popularity
    >>> Popularity(smoothing=5).smoothing
    5
    """

    smoothing: float = 10.0

    def __post_init__(self) -> None:
        check.check_number("smoothing", self.smoothing, above=0)

    def fit(self, train: Problem, validation: Problem, seed: int) -> Predictor:
        mean = train.mean_scores()
        found = {name: self._rates(train, name, mean) for name in (*train.columns.ids, *train.columns.codes)}
        judged = {name: validation.score(_looked_up(validation.columns, name, rates)) for name, rates in found.items()}
        defined = {name: score for name, score in judged.items() if np.isfinite(score)}
        if not defined:
            return train.constant("no column of ids")
        best = max(defined, key=lambda name: defined[name])
        rates = found[best]
        return Predictor(lambda columns: _looked_up(columns, best, rates), rates[1].size, f"by {best}")

    def _rates(self, train: Problem, name: str, mean: np.ndarray) -> tuple[pd.Index, np.ndarray]:
        """Values, and the scores of each; the last row is that of all others."""
        codes, values = pd.factorize(train.columns.frame[name])  # a missing value has code -1
        codes = np.where(codes < 0, len(values), codes)
        if train.task.units == 1:
            sums = np.bincount(codes, train.weights * train.labels, minlength=len(values) + 1)[:, None]
        else:
            place = codes * train.classes + train.labels.astype("int64")
            sums = np.bincount(place, train.weights, minlength=(len(values) + 1) * train.classes)
            sums = sums.reshape(-1, train.classes)
        rows = np.bincount(codes, train.weights, minlength=len(values) + 1)[:, None]
        rates = (sums + self.smoothing * mean) / (rows + self.smoothing)
        return pd.Index(values), np.concatenate([rates[:-1], mean])


def _looked_up(columns: Columns, name: str, rates: tuple[pd.Index, np.ndarray]) -> np.ndarray:
    values, scores = rates
    return scores[values.get_indexer(pd.Index(columns.frame[name]))]
