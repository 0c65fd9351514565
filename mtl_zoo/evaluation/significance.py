"""Whether a difference between models is more than the luck of the test rows or of the runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check
from mtl_zoo._progress import Bar
from mtl_zoo.metrics.exact import auc, checked_arrays


class AUCDifference(NamedTuple):
    """The result of `bootstrap_auc_difference`: `auc_b - auc_a` and its interval.

    Example:

    >>> from mtl_zoo.evaluation import bootstrap_auc_difference
    >>> found = bootstrap_auc_difference([0, 1, 0, 1], [0.4, 0.3, 0.2, 0.9], [0.1, 0.8, 0.2, 0.9], resamples=100)
    >>> found.auc_a, found.auc_b, found.difference
    (0.75, 1.0, 0.25)
    """

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    resamples: int


class Interval(NamedTuple):
    """The result of `bootstrap_interval`: a statistic and its interval.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.evaluation import bootstrap_interval
    >>> found = bootstrap_interval(np.mean, [1.0, 2.0, 3.0], resamples=200)
    >>> found.value, found.low <= found.value <= found.high
    (2.0, True)
    """

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    verbose: int = 1,
) -> Interval:
    """Computes a statistic of a sample, with a percentile interval from a bootstrap of its rows.

    With several columns it is a paired bootstrap: rows are drawn from all columns together, so that what the columns
    have in common cancels in a difference.

    Args:
        statistic: A function from the (resampled) columns to a number.
        *columns: Arrays with equally many rows.
        resamples: The number of resamples.
        confidence: The probability that the interval is meant to cover.
        seed: Seed of the resamples.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: If there are no columns, fewer than 2 rows, or columns of different lengths, or `confidence` is not
            in (0, 1).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.evaluation import bootstrap_interval
    >>> before = np.random.default_rng(0).normal(size=50)
    >>> interval = bootstrap_interval(lambda a, b: np.mean(b - a), before, before + 1.0)
    >>> [round(number, 6) for number in interval]  # the pairs differ by 1 exactly
    [1.0, 1.0, 1.0]

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    check.check_int("resamples", resamples)
    check.check_number("confidence", confidence, above=0, below=1)
    arrays = [np.asarray(column) for column in columns]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1 or lengths[0] < 2:
        raise ValueError(f"`columns` must have one number of rows, at least 2. Received: {lengths} rows")
    rng = np.random.default_rng(seed)
    values = []
    with Bar("Resamples", resamples, verbose) as bar:
        for _ in range(resamples):
            rows = rng.integers(lengths[0], size=lengths[0])
            values.append(float(statistic(*(array[rows] for array in arrays))))
            bar.advance()
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(statistic(*arrays)), float(low), float(high))


class _Ranked:
    """A score vector prepared for AUCs with many different row weights: its ranks are computed once."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        values, rank = np.unique(score, return_inverse=True)
        self.ranks = len(values)
        self.rank_of_positive, self.rank_of_negative = rank[positive], rank[~positive]

    def auc(self, positives: np.ndarray, negatives: np.ndarray) -> float:
        tied = np.bincount(self.rank_of_negative, weights=negatives, minlength=self.ranks)
        below = np.cumsum(tied) - 0.5 * tied
        return float(positives @ below[self.rank_of_positive]) / (positives.sum() * negatives.sum())


def bootstrap_auc_difference(
    y: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    verbose: int = 1,
) -> AUCDifference:
    """The difference of two models' AUC on the same rows, with a percentile interval from a paired bootstrap.

    Both models are judged on the same resampled rows, so the effect of which rows were drawn cancels.

    Args:
        y: The labels, 0 and 1.
        score_a, score_b: The two models' scores of the same rows; the difference is `AUC(b) - AUC(a)`. With a column
            for each of several runs, (rows, runs), a model's AUC is the mean over them.
        weight: The sample weights. Default: all equal.
        resamples: The number of resamples; 1,000 of 50,000 rows take a few seconds.
        confidence: The probability that the interval is meant to cover.
        seed: Seed of the resamples.
        verbose: 1: a bar on the terminal, where it takes longer than two seconds. 0: nothing.

    Raises:
        ValueError: If a class is missing, the columns differ in length, or `confidence` is not in (0, 1).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.evaluation import bootstrap_auc_difference
    >>> y = np.tile([0, 1], 500)
    >>> noise = np.random.default_rng(0).normal(size=1000)
    >>> result = bootstrap_auc_difference(y, noise + 0.1 * y, noise + 2 * y, resamples=200)
    >>> result.low > 0.2
    True

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    check.check_int("resamples", resamples)
    check.check_number("confidence", confidence, above=0, below=1)
    runs_a, runs_b = ([checked_arrays(y, run, weight) for run in _runs(score)] for score in (score_a, score_b))
    checked_y, _, checked_weight = runs_a[0]
    positive = checked_y == 1
    if positive.all() or not positive.any():
        raise ValueError(f"`y` must hold both classes. Received: only {check.sample_values(checked_y)}")
    ranked_a, ranked_b = ([_Ranked(positive, run[1]) for run in runs] for runs in (runs_a, runs_b))
    rng, rows = np.random.default_rng(seed), len(checked_y)
    differences = np.full(resamples, np.nan)
    with Bar("Resamples", resamples, verbose) as bar:
        for index in range(resamples):
            drawn = np.bincount(rng.integers(rows, size=rows), minlength=rows) * checked_weight
            positives, negatives = drawn[positive], drawn[~positive]
            if positives.any() and negatives.any():
                a, b = (np.mean([run.auc(positives, negatives) for run in runs]) for runs in (ranked_a, ranked_b))
                differences[index] = b - a
            bar.advance()
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(differences, [tail, 100 - tail])
    auc_a, auc_b = (float(np.mean([auc(*run) for run in runs])) for runs in (runs_a, runs_b))
    used = int(np.isfinite(differences).sum())
    return AUCDifference(auc_a, auc_b, auc_b - auc_a, float(low), float(high), used)


def _runs(score: ArrayLike) -> list[np.ndarray]:
    """The columns of scores of several runs; one of (rows,) or (rows, 1) is one run."""
    array = np.asarray(score)
    return [array] if array.ndim < 2 else list(array.T)


def fold_interval(differences: ArrayLike, ratio: float, *, confidence: float = 0.95) -> Interval:
    """The mean difference of two models over the folds of a cross-validation, with an interval.

    `mean(d) +- t_(k-1) sqrt((1 / k + ratio) var(d))`

    Folds share most of their training rows, so their differences are not independent and the usual interval, without
    `ratio`, is too narrow.

    Args:
        differences: The difference on each of k folds.
        ratio: Rows that are tested / rows that are trained on: `1 / (k - 1)` of k folds.
        confidence: The probability that the interval is meant to cover.

    Raises:
        ValueError: If there are fewer than 2 folds, a difference is not finite, or `ratio` < 0.

    Example:

    >>> from mtl_zoo.evaluation import fold_interval
    >>> found = fold_interval([0.010, 0.012, 0.014, 0.011, 0.013], ratio=1 / 4)
    >>> [round(number, 4) for number in found]
    [0.012, 0.0091, 0.0149]

    Reference: Nadeau and Bengio, Inference for the Generalization Error, Machine Learning 52, 2003,
    https://doi.org/10.1023/A:1024068626366
    """
    from scipy import stats

    check.check_number("ratio", ratio, minimum=0)
    check.check_number("confidence", confidence, above=0, below=1)
    found = np.asarray(differences, "float64").reshape(-1)
    if len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(f"`differences` must be finite, of at least 2 folds. Received: {check.shown(found)}")
    deviation = np.sqrt((1 / len(found) + ratio) * np.var(found, ddof=1))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(found) - 1) * deviation)
    return Interval(float(found.mean()), float(found.mean()) - reach, float(found.mean()) + reach)


def auc_standard_error(value: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC, from the numbers of rows of both classes.

    `sqrt((A (1 - A) + (n+ - 1)(A / (2 - A) - A^2) + (n- - 1)(2 A^2 / (1 + A) - A^2)) / (n+ n-))`

    For differences between models that are smaller than it, on one test set, use `bootstrap_auc_difference`.

    Example:

    >>> from mtl_zoo.evaluation import auc_standard_error
    >>> round(auc_standard_error(0.94, 3093, 46788), 4)
    0.003

    Reference: Hanley and McNeil, Radiology 143, 1982, https://doi.org/10.1148/radiology.143.1.7063747
    """
    check.check_number("value", value, minimum=0, maximum=1)
    check.check_int("positives", positives)
    check.check_int("negatives", negatives)
    square = value * value
    of_positives = value / (2 - value) - square
    of_negatives = 2 * square / (1 + value) - square
    numerator = value * (1 - value) + (positives - 1) * of_positives + (negatives - 1) * of_negatives
    return float(np.sqrt(numerator / (positives * negatives)))
