from __future__ import annotations

import dataclasses

from mtl_zoo.benchmark.baselines._base import Baseline, Predictor, Problem, register_baseline


@register_baseline("constant")
@dataclasses.dataclass(frozen=True)
class Constant(Baseline):
    """The training label's mean, or the share of each class, for every row: an AUC of 0.5.

    What it tells is the level of log loss and RMSE that knowing nothing of a row has.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Constant, fit_baseline
    >>> from mtl_zoo.datasets import load_dataset
    >>> fitted, _ = fit_baseline(Constant(), load_dataset("synthetic_funnel", size="small"))
    >>> fitted.size
    2
    """

    def fit(self, train: Problem, validation: Problem, seed: int) -> Predictor:
        return train.constant()
