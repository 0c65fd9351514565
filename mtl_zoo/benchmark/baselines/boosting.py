from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.baselines._base import Baseline, Predictor, Problem, register_baseline
from mtl_zoo.benchmark.baselines._columns import Columns

# On fewer rows threads wait for each other longer than they work, and on a busy machine much longer.
_ROWS_FOR_THREADS = 20_000
# Categories that scikit-learn's trees take; the columns of others become rates.
_MOST_CATEGORIES = 255
# Trees that are added before the validation rows are asked again.
_STEP = 20


@register_baseline("boosting")
@dataclasses.dataclass(frozen=True)
class Boosting(Baseline):
    """Gradient-boosted trees (scikit-learn's `HistGradientBoosting`), with categories as categories.

    A column with more than 255 values becomes the label's smoothed rates, cross-fitted (`TargetEncoder`): trees take no
    more. The number of trees is the one that is best on the validation rows.

    Args:
        learning_rate: Of the boosting.
        max_trees: The most trees, of each class where there are several.
        max_leaves: The most leaves of a tree.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Boosting
    >>> Boosting(max_trees=50).max_leaves
    31
    """

    learning_rate: float = 0.1
    max_trees: int = 200
    max_leaves: int = 31

    draws = True

    def __post_init__(self) -> None:
        check.check_number("learning_rate", self.learning_rate, above=0, maximum=1)
        check.check_int("max_trees", self.max_trees)
        check.check_int("max_leaves", self.max_leaves, minimum=2)

    def fit(self, train: Problem, validation: Problem, seed: int) -> Predictor:
        if train.nothing_to_learn:
            return train.constant(train.nothing_to_learn)
        design = _Design(train, seed)
        estimator = self._estimator(train, design.is_category, seed)
        with _threads(len(train.labels)):
            trees = self._grow(estimator, train, validation, design)

        def predict(columns: Columns) -> np.ndarray:
            with _threads(len(columns)):
                return next(itertools.islice(_staged(train, estimator, design(columns)), trees - 1, None))

        return Predictor(predict, trees * self.max_leaves * max(estimator.n_trees_per_iteration_, 1), f"{trees} trees")

    def _estimator(self, train: Problem, is_category: list[bool], seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        made = HistGradientBoostingRegressor if train.classes == 1 else HistGradientBoostingClassifier
        return made(
            learning_rate=self.learning_rate,
            max_iter=self.max_trees,
            max_leaf_nodes=self.max_leaves,
            categorical_features=is_category,
            early_stopping=False,
            warm_start=True,
            random_state=seed,
        )

    def _grow(self, estimator: Any, train: Problem, validation: Problem, design: _Design) -> int:
        """Adds trees until the validation rows have not gained by them for a while; the best number of trees."""
        judged, done, best, best_score = design(validation.columns), 0, 0, -np.inf
        for number in [*range(_STEP, self.max_trees, _STEP), self.max_trees]:
            estimator.set_params(max_iter=number)
            estimator.fit(design.fitted, train.labels, sample_weight=train.weights)
            if not len(validation.labels):
                continue
            for trees, scores in enumerate(_staged(train, estimator, judged), start=1):
                if trees <= done:
                    continue
                score = validation.score(scores)
                if score > best_score:
                    best, best_score = trees, score
            done = number
            if best and number - best >= 2 * _STEP:
                break
        return best or estimator.max_iter


def _threads(rows: int) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1 if rows < _ROWS_FOR_THREADS else None, user_api="openmp")


def _staged(train: Problem, estimator: Any, rows: np.ndarray) -> Any:
    """Scores after each number of trees."""
    if train.classes == 1:
        return (stage[:, None] for stage in estimator.staged_predict(rows))
    return (train.scores_of(estimator, stage) for stage in estimator.staged_predict_proba(rows))


def _target_encoder(train: Problem, seed: int) -> Any:
    import sklearn
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder

    kind = {1: "continuous", 2: "binary"}.get(train.classes, "multiclass")
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    # Earlier versions take a number of folds alone, and later ones no seed.
    folds = {"cv": KFold(5, shuffle=True, random_state=seed)} if version >= (1, 9) else {"random_state": seed}
    return TargetEncoder(target_type=kind, **folds)


class _Design:
    """Columns as a matrix: numbers, codes of categories, and rates where there are too many of them."""

    def __init__(self, train: Problem, seed: int) -> None:
        columns = train.columns
        counts = {name: columns.frame[name].nunique() for name in columns.ids}
        self._numbers = list(columns.numbers)
        self._few = {
            name: pd.Index(columns.frame[name].dropna().unique())
            for name, count in counts.items()
            if count < _MOST_CATEGORIES
        }
        self._many = [name for name in counts if name not in self._few]
        rates = np.zeros((len(columns), 0))
        if self._many:
            self._encoder = _target_encoder(train, seed)
            rates = self._encoder.fit_transform(columns.frame[self._many].fillna(""), train.labels)
        self.fitted = self._matrix(columns, rates)
        plain = self.fitted.shape[1] - len(self._few)
        self.is_category = [False] * plain + [True] * len(self._few)

    def __call__(self, columns: Columns) -> np.ndarray:
        rates = np.zeros((len(columns), 0))
        if self._many and len(columns):
            rates = self._encoder.transform(columns.frame[self._many].fillna(""))
        return self._matrix(columns, rates)

    def _matrix(self, columns: Columns, rates: np.ndarray) -> np.ndarray:
        # A value that is missing, or was not seen in training, is a missing category.
        codes = [values.get_indexer(pd.Index(columns.frame[name])) for name, values in self._few.items()]
        few = np.where(np.array(codes, "float64") < 0, np.nan, codes).T if codes else np.zeros((len(columns), 0))
        return np.concatenate([columns.frame[self._numbers].to_numpy("float64"), rates, few], axis=1)
