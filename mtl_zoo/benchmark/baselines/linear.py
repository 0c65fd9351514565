from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.benchmark.baselines._base import Baseline, Predictor, Problem, register_baseline
from mtl_zoo.benchmark.baselines._columns import Columns


@register_baseline("linear")
@dataclasses.dataclass(frozen=True)
class Linear(Baseline):
    """Logistic regression, or ridge regression of a number (scikit-learn).

    Categories become columns of 0 and 1, of which rare values share one; numbers are standardised, and a missing one is
    the median with a column that says so. The strength of the penalty is the one that is best on the validation rows.

    Args:
        strengths: Inverse strengths of the L2 penalty that are tried, `C` of logistic regression.
        max_values: The most values of a column that have a column of their own.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Linear
    >>> Linear().strengths
    (0.01, 0.1, 1.0)
    """

    strengths: tuple[float, ...] = (0.01, 0.1, 1.0)
    max_values: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "strengths", tuple(self.strengths))
        for i, strength in enumerate(self.strengths):
            check.check_number(f"strengths[{i}]", strength, above=0)
        check.check_int("max_values", self.max_values, minimum=2)

    def fit(self, train: Problem, validation: Problem, seed: int) -> Predictor:
        if train.nothing_to_learn:
            return train.constant(train.nothing_to_learn)
        design = self._design(train.columns)
        rows, judged = design.fit_transform(train.columns.frame), design.transform(validation.columns.frame)
        best: Any = None
        best_score = -np.inf
        for strength in self.strengths:
            estimator = _estimator(train, strength).fit(rows, train.labels, sample_weight=train.weights)
            score = validation.score(_scores(train, estimator, judged)) if len(validation.labels) else np.nan
            if best is None or score > best_score:
                best, best_score = estimator, (score if np.isfinite(score) else -np.inf)
        return Predictor(
            lambda columns: _scores(train, best, design.transform(columns.frame)),
            np.size(best.coef_) + np.size(best.intercept_),
        )

    def _design(self, columns: Columns) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        ids = make_pipeline(
            SimpleImputer(strategy="constant", fill_value="", missing_values=None),
            OneHotEncoder(min_frequency=2, max_categories=self.max_values, handle_unknown="infrequent_if_exist"),
        )
        return ColumnTransformer(
            [("numbers", numbers, list(columns.numbers)), ("ids", ids, [*columns.ids, *columns.codes])]
        )


def _estimator(train: Problem, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if train.classes == 1:
        return _Standardised(Ridge(alpha=1.0 / strength))
    return LogisticRegression(C=strength, max_iter=300)


def _scores(train: Problem, estimator: Any, rows: Any) -> np.ndarray:
    if train.classes == 1:
        return np.asarray(estimator.predict(rows))[:, None]
    return train.scores_of(estimator, estimator.predict_proba(rows))


class _Standardised:
    """A regression of the label in units of its deviation, so that a penalty means the same for any label."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, rows: Any, labels: np.ndarray, sample_weight: np.ndarray) -> _Standardised:
        self.mean, self.deviation = float(np.mean(labels)), float(np.std(labels)) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns that say the same
            self.estimator.fit(rows, (labels - self.mean) / self.deviation, sample_weight=sample_weight)
        self.coef_, self.intercept_ = self.estimator.coef_, self.estimator.intercept_
        return self

    def predict(self, rows: Any) -> np.ndarray:
        return self.estimator.predict(rows) * self.deviation + self.mean
