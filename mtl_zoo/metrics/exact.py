"""Exact metrics on arrays of labels and scores, with sample weights. Natural logarithms everywhere.

`y` holds labels, `p` or `score` the predictions, `weight` non-negative numbers (default: all 1); all of shape (n,).
A metric that the rows do not define (one class only, no rows) is NaN.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from mtl_zoo import _validation as check


def checked_arrays(
    y: ArrayLike, score: ArrayLike, weight: ArrayLike | None, *, binary: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked columns without the rows of weight 0; scores keep their dtype."""
    y, score = np.asarray(y), np.asarray(score)
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    score = score.reshape(-1) if score.ndim == 2 and score.shape[1] == 1 else score
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype="float64").reshape(-1)
    if not len(y) == len(score) == len(weight):
        raise ValueError(
            "`y`, the scores and `weight` must have the same number of rows. "
            f"Received: {len(y)}, {len(score)} and {len(weight)}"
        )
    if not np.isfinite(score).all():
        raise ValueError(f"`score` must be finite. Received: {int((~np.isfinite(score)).sum())} NaN or infinite scores")
    if (weight < 0).any() or not np.isfinite(weight).all():
        bad = weight[(weight < 0) | ~np.isfinite(weight)]
        raise ValueError(f"`weight` must be finite and not negative. Received: {check.sample_values(bad)}")
    y = y.astype("float64")
    if binary and not np.isin(y, (0.0, 1.0)).all():
        wrong = y[~np.isin(y, (0.0, 1.0))]
        raise ValueError(f"`y` must be 0 or 1. Received: {len(wrong)} other labels, {check.sample_values(wrong)}")
    kept = weight > 0
    return (y, score, weight) if kept.all() else (y[kept], score[kept], weight[kept])


def auc(y: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve, `(#{pos > neg} + #{pos = neg} / 2) / (n+ n-)`; NaN if a class is missing.

    Example:

    >>> from mtl_zoo.evaluation import auc
    >>> round(auc([1, 0, 1, 0, 1], [0.8, 0.8, 0.6, 0.3, 0.2]), 6)
    0.416667
    """
    labels, scores, weights = checked_arrays(y, score, weight)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(sk.roc_auc_score(labels, scores, sample_weight=weights))


def logloss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """`-mean(y log p + (1 - y) log(1 - p))`; p is clipped to what its dtype can tell from 0 and 1.

    Example:

    >>> from mtl_zoo.evaluation import logloss
    >>> round(logloss([0, 0, 1, 0], [0.2, 0.1, 0.6, 0.3]), 6)
    0.299001
    """
    labels, scores, weights = checked_arrays(y, p, weight)
    if not len(labels):
        return float("nan")
    return float(sk.log_loss(labels, _clipped(scores), sample_weight=weights, labels=[0.0, 1.0]))


def _clipped(p: np.ndarray) -> np.ndarray:
    eps = np.finfo(p.dtype).eps if np.issubdtype(p.dtype, np.floating) else np.finfo("float64").eps
    return np.clip(p.astype("float64"), eps, 1 - eps)


def normalized_entropy(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """LogLoss over the entropy of the mean label of these rows: 1 for the best constant, lower is better.

    Reference: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.

    Example:

    >>> from mtl_zoo.evaluation import normalized_entropy
    >>> round(normalized_entropy([0, 0, 1, 0], [0.2, 0.1, 0.6, 0.3]), 6)
    0.531713
    """
    labels, scores, weights = checked_arrays(y, p, weight)
    rate = float(np.average(labels, weights=weights)) if len(labels) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    return logloss(labels, scores, weights) / float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def pcoc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Predicted over observed rate, `sum(p) / sum(y)`: 1 is ideal, above 1 over-estimates; NaN without positives.

    Example:

    >>> from mtl_zoo.evaluation import pcoc
    >>> round(pcoc([0, 0, 1, 0], [0.2, 0.1, 0.6, 0.3]), 6)
    1.2
    """
    labels, scores, weights = checked_arrays(y, p, weight)
    positives = float(weights @ labels)
    return float(weights @ scores.astype("float64")) / positives if positives > 0 else float("nan")


def ece(
    y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, *, bins: int | None = None, binning: str = "width"
) -> float:
    """Expected calibration error, `sum_b (n_b / n) |mean p_b - mean y_b|`.

    Args:
        y, p, weight: Labels, probabilities in [0, 1], weights.
        bins: Number of bins. Default: 15 of equal width, 100 of equal mass.
        binning: `"width"`: equal intervals of [0, 1]. `"mass"`: equal weight in each, which rare positives need; rows
            with equal p fall into one bin.

    Raises:
        ValueError: `binning` is unknown, `bins` < 1, or a p is outside [0, 1].

    Example:

    >>> from mtl_zoo.evaluation import ece
    >>> round(ece([0, 0, 1, 0], [0.2, 0.1, 0.6, 0.3], bins=2), 6)
    0.25
    """
    check.check_choice("binning", binning, ("width", "mass"))
    bins = check.check_int("bins", bins if bins is not None else {"width": 15, "mass": 100}[binning])
    labels, scores, weights = checked_arrays(y, p, weight)
    scores = scores.astype("float64")
    if not len(labels):
        return float("nan")
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"`p` must be in [0, 1]. Received: {check.sample_values(scores[(scores < 0) | (scores > 1)])}")
    if binning == "width":
        bin_of_row = np.minimum((scores * bins).astype("int64"), bins - 1)
    else:
        _, group = np.unique(scores, return_inverse=True)
        mass = np.bincount(group, weights=weights)
        before = (np.cumsum(mass) - mass) / mass.sum()
        bin_of_row = np.minimum((before * bins).astype("int64"), bins - 1)[group]
    gaps = np.bincount(bin_of_row, weights=weights * (scores - labels), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def _decisions(y: Any, score: Any, weight: Any, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, scores, weights = checked_arrays(y, score, weight)
    return labels, (scores >= threshold).astype("float64"), weights


def accuracy(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, *, threshold: float = 0.5) -> float:
    """Share of right decisions: class 1 from `threshold` on, or the largest of `p` if it is (n, classes).

    Example:

    >>> from mtl_zoo.evaluation import accuracy
    >>> accuracy([0, 1], [0.2, 0.4]), accuracy([0, 2], [[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]])
    (0.5, 1.0)
    """
    if np.ndim(p) == 2 and np.shape(p)[1] > 1:
        labels, scores, weights = checked_arrays(y, p, weight, binary=False)
        decided = scores.argmax(axis=1)
    else:
        labels, decided, weights = _decisions(y, p, weight, threshold)
    return float(sk.accuracy_score(labels, decided, sample_weight=weights)) if len(labels) else float("nan")


def precision(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, *, threshold: float = 0.5) -> float:
    """Share of positives among the rows with p >= threshold; NaN if there are none.

    Example:

    >>> from mtl_zoo.evaluation import precision
    >>> precision([1, 0, 1, 0], [0.9, 0.8, 0.4, 0.1])
    0.5
    """
    labels, decided, weights = _decisions(y, p, weight, threshold)
    return float(sk.precision_score(labels, decided, sample_weight=weights, zero_division=np.nan))


def recall(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, *, threshold: float = 0.5) -> float:
    """Share of the positives with p >= threshold; NaN without positives.

    Example:

    >>> from mtl_zoo.evaluation import recall
    >>> recall([1, 0, 1, 0], [0.9, 0.8, 0.4, 0.1])
    0.5
    """
    labels, decided, weights = _decisions(y, p, weight, threshold)
    return float(sk.recall_score(labels, decided, sample_weight=weights, zero_division=np.nan))


def f1(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, *, threshold: float = 0.5) -> float:
    """`2 TP / (2 TP + FP + FN)` at the threshold; NaN where there is neither a positive nor a decision for one.

    Example:

    >>> from mtl_zoo.evaluation import f1
    >>> f1([1, 0, 1, 0], [0.9, 0.8, 0.4, 0.1])
    0.5
    """
    labels, decided, weights = _decisions(y, p, weight, threshold)
    return float(sk.f1_score(labels, decided, sample_weight=weights, zero_division=np.nan))


def ks(y: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Kolmogorov-Smirnov distance, the largest `|TPR - FPR|` over thresholds; NaN if a class is missing.

    Example:

    >>> from mtl_zoo.evaluation import ks
    >>> round(ks([1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1]), 6)
    0.5
    """
    labels, scores, weights = checked_arrays(y, score, weight)
    if len(np.unique(labels)) < 2:
        return float("nan")
    false_rate, true_rate, _ = sk.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    return float(np.abs(true_rate - false_rate).max())


class GroupedAUC(NamedTuple):
    """What `gauc` found: the value, how many groups count (both classes), how many there are, and rows without one.

    Example:

    >>> from mtl_zoo.evaluation import gauc
    >>> found = gauc([1, 0, 1, 1], [0.9, 0.2, 0.5, 0.4], ["ann", "ann", "bob", "bob"])
    >>> found.value, found.kept, found.groups
    (1.0, 1, 2)
    """

    value: float
    kept: int
    groups: int
    without: int = 0


def gauc(
    y: ArrayLike,
    score: ArrayLike,
    groups: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    group_weight: str = "impressions",
) -> GroupedAUC:
    """Mean over groups (users) of their own AUC, `sum_u c_u AUC_u / sum_u c_u`, over groups with both classes.

    Args:
        y, score, weight: Labels, scores, weights.
        groups: The group of each row. Rows without one (NaN, None) are left out.
        group_weight: c_u: `"impressions"` (the group's rows), `"clicks"` (its positive rows) or `"uniform"` (1).

    Raises:
        ValueError: `group_weight` is unknown; the columns differ in length.

    Example:

    >>> from mtl_zoo.evaluation import gauc
    >>> gauc([1, 0, 1, 1], [0.9, 0.2, 0.5, 0.4], ["ann", "ann", "bob", "bob"])
    GroupedAUC(value=1.0, kept=1, groups=2, without=0)

    Reference: Zhou et al., Deep Interest Network, KDD 2018, https://arxiv.org/abs/1706.06978
    """
    check.check_choice("group_weight", group_weight, ("impressions", "clicks", "uniform"))
    group, rows = _codes(groups), len(np.asarray(y))
    if len(group) != rows:
        raise ValueError(f"`groups` must have one value a row. Received: {len(group)} for {rows} rows")
    weight = np.ones(rows) if weight is None else np.asarray(weight, dtype="float64").reshape(-1)
    checked_arrays(y, score, weight)
    without = int(np.sum((group < 0) & (weight > 0)))
    weight = np.where(group < 0, 0.0, weight)
    group = group[weight > 0]
    labels, scores, weights = checked_arrays(y, score, weight)
    if not len(labels):
        return GroupedAUC(float("nan"), 0, 0, without)
    order = np.lexsort((scores, group))
    group, scores, labels, weights = group[order], scores[order], labels[order], weights[order]
    positive, negative = weights * labels, weights * (1 - labels)
    # Rows of one group with one score are a tie: a positive counts half of the negatives in its own tie.
    starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (scores[1:] != scores[:-1])])
    group, positive, negative = group[starts], np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    positives, negatives = np.bincount(group, weights=positive), np.bincount(group, weights=negative)
    before = np.cumsum(negative) - negative - (np.cumsum(negatives) - negatives)[group]
    wins = np.bincount(group, weights=positive * (before + 0.5 * negative))
    kept = (positives > 0) & (negatives > 0)
    if not kept.any():
        return GroupedAUC(float("nan"), 0, len(kept), without)
    counts = {"impressions": positives + negatives, "clicks": positives, "uniform": np.ones(len(kept))}[group_weight]
    value = np.average((wins[kept] / positives[kept]) / negatives[kept], weights=counts[kept])
    return GroupedAUC(float(value), int(kept.sum()), len(kept), without)


def _codes(groups: ArrayLike) -> np.ndarray:
    """The number of each row's group, from 0; -1 where there is none."""
    names = np.asarray(groups)
    if names.dtype.kind == "U" and not isinstance(groups, np.ndarray):
        # NumPy makes the string "None" of a None among strings.
        names = np.array(list(groups), dtype=object)  # type: ignore[arg-type]
    return pd.factorize(names.reshape(-1))[0]


def rmse(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Root of the mean squared error.

    Example:

    >>> from mtl_zoo.evaluation import rmse
    >>> rmse([1.0, 2.0], [1.0, 4.0]) ** 2
    2.0000000000000004
    """
    labels, scores, weights = checked_arrays(y, prediction, weight, binary=False)
    return float(sk.root_mean_squared_error(labels, scores, sample_weight=weights)) if len(labels) else float("nan")


def nrmse(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """RMSE over the standard deviation of these labels: 1 for the best constant; NaN where the labels are all equal.

    Example:

    >>> from mtl_zoo.evaluation import nrmse
    >>> nrmse([1.0, 3.0], [2.0, 2.0])
    1.0
    """
    labels, scores, weights = checked_arrays(y, prediction, weight, binary=False)
    if not len(labels):
        return float("nan")
    deviation = float(np.sqrt(np.average((labels - np.average(labels, weights=weights)) ** 2, weights=weights)))
    return rmse(labels, scores, weights) / deviation if deviation > 0 else float("nan")


def mae(y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean absolute error.

    Example:

    >>> from mtl_zoo.evaluation import mae
    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    labels, scores, weights = checked_arrays(y, prediction, weight, binary=False)
    return float(sk.mean_absolute_error(labels, scores, sample_weight=weights)) if len(labels) else float("nan")


def multiclass_logloss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """`-mean(log p[y])` for class positions `y` of shape (n,) and probabilities `p` of shape (n, classes).

    Example:

    >>> from mtl_zoo.evaluation import multiclass_logloss
    >>> round(multiclass_logloss([0, 2], [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]), 4)
    0.6931
    """
    labels, scores, weights = checked_arrays(y, p, weight, binary=False)
    if not len(labels):
        return float("nan")
    with warnings.catch_warnings():
        # float32 rows of a softmax sum to 1 only to 1e-7.
        warnings.filterwarnings("ignore", message=".*do not sum to one.*")
        classes = np.arange(scores.shape[1])
        return float(sk.log_loss(labels, _clipped(scores), sample_weight=weights, labels=classes))


def macro_auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean over classes of the AUC of one class against the rest; classes without both kinds of rows are left out.

    Example:

    >>> from mtl_zoo.evaluation import macro_auc
    >>> macro_auc([0, 1, 2], [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
    1.0
    """
    labels, scores, weights = checked_arrays(y, p, weight, binary=False)
    if not len(labels):
        return float("nan")
    areas = [auc(labels == position, scores[:, position], weights) for position in range(scores.shape[1])]
    areas = [area for area in areas if not np.isnan(area)]
    return float(np.mean(areas)) if areas else float("nan")


def correct_downsampling(p: ArrayLike, keep_rate: float) -> np.ndarray:
    """Scores of a model trained on a share `keep_rate` of the negatives, put back: `a p / (1 - p + a p)`.

    Example:

    >>> from mtl_zoo.evaluation import correct_downsampling
    >>> round(float(correct_downsampling(0.107481, 0.1)), 6)
    0.011899
    """
    keep_rate = check.check_number("keep_rate", keep_rate, above=0, maximum=1)
    scores = np.asarray(p, dtype="float64")
    return keep_rate * scores / (1 - scores + keep_rate * scores)
