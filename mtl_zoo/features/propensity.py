"""Logs that somebody chose: how likely a label was to be seen, and what to train on instead of what was seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_zoo import _validation as check


def propensity_weights(
    propensities: ArrayLike, observed: ArrayLike | None = None, *, clip: float = 0.01, normalize: bool = True
) -> np.ndarray:
    """Weights of rows by the inverse of how likely their label was to be seen.

        w_i = o_i / max(p_i, clip);   normalized: divided by their mean over the observed rows

    The mean of `w_i * loss_i` over all rows (0 where nothing is observed) estimates the mean loss that all rows would
    have, without bias if `p` is right and nothing is clipped. As the column of `BinaryTask(sample_weight=...)` or
    `RegressionTask(sample_weight=...)` they train with the self-normalised estimate (SNIPS): the losses of a batch are
    divided by the sum of its weights. As weights of a split they do the same for the metrics of `evaluate`.

    Args:
        propensities: (rows,) probabilities above 0.
        observed: (rows,) 0 or 1, whether the label was seen. Default: None, all were.
        clip: Smallest propensity that is believed: a bound of the weights, which costs some bias and saves much
            variance. Default: 0.01.
        normalize: Bring the mean of the observed rows' weights to 1, so that learning rates keep their meaning.
            Default: True.

    Returns:
        (rows,) float32.

    Raises:
        ValueError: Propensities that are no probabilities above 0; `observed` that is not 0 or 1.

    Example:

    >>> from mtl_zoo.features import propensity_weights
    >>> propensity_weights([0.5, 0.25, 0.25], [1, 1, 0], normalize=False).tolist()
    [2.0, 4.0, 0.0]

    Reference:
        Schnabel et al., "Recommendations as Treatments", ICML 2016, arXiv:1602.05352; Swaminathan and Joachims, "The
        Self-Normalized Estimator for Counterfactual Learning", NeurIPS 2015.
    """
    found, seen = _checked(propensities, observed, clip)
    weights = seen / np.maximum(found, clip)
    if normalize and seen.any():
        weights = weights / weights[seen > 0].mean()
    return weights.astype("float32")


def doubly_robust_labels(
    labels: ArrayLike,
    propensities: ArrayLike,
    imputed: ArrayLike,
    observed: ArrayLike | None = None,
    clip: float = 0.01,
) -> np.ndarray:
    """Labels of all rows, seen or not, on which a regression has the doubly robust estimate's gradient.

        y~_i = yhat_i + o_i * (y_i - yhat_i) / max(p_i, clip)

    With `yhat` another model's scores: for the squared error the gradient of `(f - y~)^2` is that of
    `(f - yhat)^2 + o / p * ((f - y)^2 - (f - yhat)^2)`, whose mean has no bias if either `p` or `yhat` is right. They
    may lie outside of the range of labels, so they are for a `RegressionTask`.

    Args:
        labels: (rows,) NaN or anything where not observed.
        propensities: (rows,) probabilities above 0.
        imputed: (rows,) scores of a model that was trained on observed rows.
        observed: (rows,) 0 or 1. Default: None, where the label is not NaN.
        clip: As in `propensity_weights`. Default: 0.01.

    Returns:
        (rows,) float32.

    Raises:
        ValueError: As `propensity_weights`; scores that are not finite; a missing label in an observed row.

    Example:

    >>> from mtl_zoo.features import doubly_robust_labels
    >>> doubly_robust_labels([5, float("nan")], [0.5, 0.1], imputed=[4, 3]).tolist()
    [6.0, 3.0]

    Reference: Wang et al., "Doubly Robust Joint Learning for Recommendation on Data Missing Not at Random", ICML 2019.
    """
    y = np.asarray(labels, "float64").reshape(-1)
    found, seen = _checked(propensities, ~np.isnan(y) if observed is None else observed, clip)
    scores = np.asarray(imputed, "float64").reshape(-1)
    if not len(y) == len(found) == len(scores):
        raise ValueError(
            "`labels`, `propensities` and `imputed` must have the same number of rows. "
            f"Received: {len(y)}, {len(found)} and {len(scores)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"`imputed` must be finite. Received: {check.sample_values(scores[~np.isfinite(scores)])}")
    if np.isnan(y[seen > 0]).any():
        raise ValueError(f"`labels` must be there where observed. Received: {int(np.isnan(y[seen > 0]).sum())} NaN")
    moved = np.where(seen > 0, np.nan_to_num(y) - scores, 0.0) / np.maximum(found, clip)
    return (scores + moved).astype("float32")


def naive_bayes_propensities(labels: ArrayLike, reference: ArrayLike, share: float) -> np.ndarray:
    """How likely each row was to be seen, from its label alone.

        P(O=1 | Y=y) = P(Y=y | O=1) * P(O=1) / P(Y=y)

    The first two are counted in the log; P(Y) needs a few labels of rows that chance chose.

    Args:
        labels: (rows,) classes or stars of the log's rows, all of them seen.
        reference: Labels of rows that chance chose; every label of the log among them.
        share: P(O=1), the share of all rows that was seen, in (0, 1].

    Returns:
        (rows,) float64, at most 1.

    Raises:
        ValueError: A label that `reference` lacks; `share` outside of (0, 1]; no rows.

    Example:

    >>> from mtl_zoo.features import naive_bayes_propensities
    >>> naive_bayes_propensities([5, 5, 5, 1], reference=[1, 1, 5, 1], share=0.1).round(3).tolist()
    [0.3, 0.3, 0.3, 0.033]

    Reference: Schnabel et al., "Recommendations as Treatments", ICML 2016, arXiv:1602.05352, section 5.1.
    """
    log, chosen = pd.Series(np.asarray(labels).reshape(-1)), pd.Series(np.asarray(reference).reshape(-1))
    share = check.check_number("share", share, above=0, maximum=1)
    if log.empty or chosen.empty:
        raise ValueError(f"`labels` and `reference` must have rows. Received: {len(log)} and {len(chosen)}")
    lacking = sorted(set(log) - set(chosen))
    if lacking:
        raise ValueError(f"`reference` must hold every label of the log. Missing: {check.sample_values(lacking)}")
    in_log, in_all = log.value_counts(normalize=True), chosen.value_counts(normalize=True)
    return np.minimum(log.map(in_log * share / in_all).to_numpy("float64"), 1.0)


def learn_propensities(table: pd.DataFrame, observed: ArrayLike, *, columns: Any = None, l2: float = 1.0) -> np.ndarray:
    """How likely each row's label was to be seen, by a logistic regression on its columns.

    Text, categories and whole numbers are one-hot, other numbers are standardised and a missing one is their mean.

    Args:
        table: All rows, seen or not.
        observed: (rows,) 0 or 1.
        columns: Names of the columns to look at. Default: None, all.
        l2: Strength of the penalty. Default: 1.0.

    Returns:
        (rows,) float64 probabilities.

    Raises:
        ValueError: A column that is not there; `observed` of one value, or of another length.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.features import learn_propensities
    >>> rows = pd.DataFrame({"city": ["Rome"] * 50 + ["Oslo"] * 50})
    >>> p = learn_propensities(rows, [1] * 40 + [0] * 10 + [1] * 5 + [0] * 45)
    >>> bool(p[0] > 0.7), bool(p[-1] < 0.2)
    (True, True)
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    names = list(table.columns) if columns is None else list(columns)
    missing = [name for name in names if name not in table.columns]
    if missing or not names:
        raise ValueError(f"`columns` must name columns of the table. Received: {missing or names}")
    seen = _seen(observed, len(table))
    if len(np.unique(seen)) < 2:
        raise ValueError(f"`observed` must hold both 0 and 1. Received: {np.unique(seen).tolist()} alone")
    l2 = check.check_number("l2", l2, above=0)
    numbers = [name for name in names if pd.api.types.is_float_dtype(table[name])]
    others = [name for name in names if name not in numbers]
    parts = [
        ("numbers", make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()), numbers),
        ("categories", OneHotEncoder(handle_unknown="ignore"), others),
    ]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression(C=1.0 / l2, max_iter=1000))
    rows = table[names].astype(dict.fromkeys(others, str))
    return model.fit(rows, seen).predict_proba(rows)[:, 1]


def _checked(propensities: ArrayLike, observed: ArrayLike | None, clip: float) -> tuple[np.ndarray, np.ndarray]:
    check.check_number("clip", clip, minimum=0, maximum=1)
    found = np.asarray(propensities, "float64").reshape(-1)
    wrong = ~((found > 0) & (found <= 1))
    if wrong.any():
        raise ValueError(
            f"`propensities` must be above 0 and at most 1. Received: {int(wrong.sum())} others, "
            f"{check.sample_values(found[wrong])}"
        )
    return found, np.ones(len(found)) if observed is None else _seen(observed, len(found))


def _seen(observed: ArrayLike, rows: int) -> np.ndarray:
    seen = np.asarray(observed, "float64").reshape(-1)
    if len(seen) != rows or not np.isin(seen, (0, 1)).all():
        raise ValueError(f"`observed` must be 0 or 1 for each of {rows} rows. Received: {len(seen)} values")
    return seen
