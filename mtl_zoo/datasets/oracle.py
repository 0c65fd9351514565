"""The best scores any model can reach on data whose true probabilities are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_zoo.tasks import Task


def _checked(p: Any, v: Any) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, dtype="float64").reshape(-1)
    v = np.ones_like(p) if v is None else np.asarray(v, dtype="float64").reshape(-1)
    if len(p) == 0:
        raise ValueError("`p` must have at least one row. Received: an empty array")
    if len(v) != len(p):
        raise ValueError(f"`v` must have as many rows as `p`. Received: {len(v)} and {len(p)} rows")
    if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"`p` must be probabilities in [0, 1]. Received: from {np.min(p)} to {np.max(p)}")
    if not (np.isfinite(v).all() and v.min() >= 0 and v.sum() > 0):
        raise ValueError(f"`v` must be weights >= 0 with a positive sum. Received: from {np.min(v)} to {np.max(v)}")
    return p, v


def oracle_auc(p: Any, v: Any = None) -> float:
    """The expected AUC of a model that scores every row by its true probability.

    `AUC* = sum_i v_i p_i [sum_{p_j < p_i} v_j (1 - p_j) + .5 sum_{p_j = p_i} v_j (1 - p_j)] / (sum v p sum v (1 - p))`,
    in O(n log n) by sorting.

    Args:
        p: True probabilities, shape (n,).
        v: Probability of each row to be in the sample space: the click probability for a task that is defined on
            clicks. Default: 1 for all.

    Returns:
        AUC*; NaN if all rows are certain to have the same label.

    Raises:
        ValueError: `p` is empty or not in [0, 1]; `v` is negative or has another length.

    Example:

    >>> from mtl_zoo.datasets import oracle_auc
    >>> round(oracle_auc([0.2, 0.8]), 2), oracle_auc([0.3, 0.3, 0.3])
    (0.8, 0.5)
    """
    p, v = _checked(p, v)
    order = np.argsort(p, kind="stable")
    p, v = p[order], v[order]
    positive, negative = v * p, v * (1 - p)
    total = positive.sum() * negative.sum()
    if total == 0:
        return float("nan")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(p)) + 1])
    positive, negative = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / total)


def oracle_logloss(p: Any, v: Any = None) -> float:
    """The expected log loss of the true probabilities: `LogLoss* = sum v H(p) / sum v`, H the entropy in nats.

    Args:
        p: True probabilities, shape (n,).
        v: Probability of each row to be in the sample space. Default: 1 for all.

    Raises:
        ValueError: `p` is empty or not in [0, 1]; `v` is negative or has another length.

    Example:

    >>> from mtl_zoo.datasets import oracle_logloss
    >>> round(oracle_logloss([0.5, 0.5]), 4)
    0.6931
    """
    p, v = _checked(p, v)
    return float(np.sum(v * _entropy(p)) / v.sum())


def _entropy(p: np.ndarray) -> np.ndarray:
    certain = (p <= 0) | (p >= 1)
    inner = np.where(certain, 0.5, p)
    return np.where(certain, 0.0, -inner * np.log(inner) - (1 - inner) * np.log1p(-inner))


def inclusion(tasks: Sequence[Task], truth: dict[str, np.ndarray], space: str | None) -> np.ndarray | None:
    """Probability of each row to be in a sample space: the product of the links that lead there. None: all rows are."""
    by_name = {task.name: task for task in tasks}
    result = None
    while space is not None:
        result = truth[space] if result is None else result * truth[space]
        space = by_name[space].sample_space if space in by_name else None
    return result


def oracle_scores(split: Any, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The oracle's scores of a split that carries its truth, one dict for each output, in the output's own space.

    Args:
        split: A `Split` with `truth`.
        tasks: The data set's tasks.

    Returns:
        Dicts with `output`, `space` (`"impressions"` or the sample-space column), `auc`, `logloss` and `ne`
        (`LogLoss* / H(mean)`) for probabilities; `rmse` of the truth against the observed labels for regressions.

    Raises:
        ValueError: The split has no truth.

    Example:

    >>> from mtl_zoo.datasets import load_dataset, oracle_scores
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> [(row["output"], row["space"]) for row in oracle_scores(data.test, data.tasks)]
    [('click', 'impressions'), ('conversion', 'click'), ('click_and_conversion', 'impressions')]
    """
    if not split.truth:
        raise ValueError("`split` must carry its true probabilities. Received: a split without `truth`")
    by_name = {task.name: task for task in tasks}
    rows: list[dict[str, Any]] = []
    for name, p in split.truth.items():
        task = by_name.get(name)
        space = task.sample_space if task is not None else None
        row: dict[str, Any] = {"output": name, "space": space or "impressions"}
        if task is not None and not task.is_event:
            row["rmse"] = _rmse(split.labels, task, p)
        else:
            v = inclusion(tasks, split.truth, space)
            logloss = oracle_logloss(p, v)
            mean = float(np.average(p, weights=v))
            row |= {"auc": oracle_auc(p, v), "logloss": logloss, "ne": logloss / float(_entropy(np.asarray(mean)))}
        rows.append(row)
    return rows


def _rmse(labels: dict[str, np.ndarray], task: Task, truth: np.ndarray) -> float:
    observed = np.isfinite(labels[task.name])
    if task.sample_space is not None:
        observed &= labels[task.sample_space] == 1
    if not observed.any():
        return float("nan")
    return float(np.sqrt(np.mean((labels[task.name][observed] - truth[observed]) ** 2)))
