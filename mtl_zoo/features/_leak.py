"""Features that give a label away: one column that alone separates its 0s from its 1s."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mtl_zoo.features._columns import STRING, Column
from mtl_zoo.tasks import Task

THRESHOLD = 0.999
MOST_ROWS = 200_000
# With fewer of either class, a separation is no evidence.
FEWEST_OF_A_CLASS = 10


def warn_of_leaks(
    columns: Mapping[str, tuple[Column, bool]],
    labels: Mapping[str, np.ndarray],
    tasks: Sequence[Task],
    known: frozenset[tuple[str, str]] = frozenset(),
) -> frozenset[tuple[str, str]]:
    """Warns of each feature that alone predicts a binary label with AUC above .999.

    Args:
        columns: By feature name, the column and whether its values are ordered numbers.
        labels: By task name, and sample-space columns.
        known: (feature, task) pairs that a warning was given for.

    Returns:
        The pairs found, `known` included.
    """
    found = set(known)
    for task in tasks:
        rows = _rows_of(task, labels)
        label = task.leaked_classes(labels[task.name][rows])
        if label is None or min(label.sum(), (~label).sum()) < FEWEST_OF_A_CLASS:
            continue
        for name, (column, is_number) in columns.items():
            if column.is_list or (name, task.name) in found:
                continue
            found_auc = _number_auc(column, rows, label) if is_number else _value_auc(column, rows, label)
            if found_auc > THRESHOLD:
                found.add((name, task.name))
                warnings.warn(
                    f"`{name}` alone predicts {task.label_column!r}, the label of task {task.name!r}, with AUC "
                    f"{found_auc:.4f}: it may be known only after the label is, or derived from it. Leave it out of "
                    "the features if so.",
                    UserWarning,
                    stacklevel=4,
                )
    return frozenset(found)


def _rows_of(task: Task, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows where the task is observed, at most 200,000 of them."""
    defined = ~np.isnan(labels[task.name])
    if task.sample_space is not None:
        defined &= labels[task.sample_space] == 1
    rows = np.flatnonzero(defined)
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    return rows


def _number_auc(column: Column, rows: np.ndarray, label: np.ndarray) -> float:
    if column.kind == STRING:
        return 0.5
    numbers = column.numbers()[rows]
    # Whether a number is there at all may give the label away, so missing ones count as lowest, then as highest.
    aucs = [auc(np.nan_to_num(numbers, nan=end), label) for end in (-np.inf, np.inf)]
    return max(*aucs, *(1 - a for a in aucs))


def _value_auc(column: Column, rows: np.ndarray, label: np.ndarray) -> float:
    """Rates by value, learned on one half and tried on the other: a value seen once tells nothing."""
    codes = column.cells().codes[rows] + 1
    half = np.random.default_rng(0).integers(0, 2, len(rows)).astype(bool)
    aucs = []
    for tried in (half, ~half):
        if not 0 < label[tried].sum() < tried.sum():
            continue
        learned = ~tried
        prior = label[learned].mean()
        counts = np.bincount(codes[learned], minlength=codes.max() + 1)
        ones = np.bincount(codes[learned], weights=label[learned], minlength=codes.max() + 1)
        aucs.append(auc(((ones + prior) / (counts + 1))[codes[tried]], label[tried]))
    return float(np.mean(aucs)) if aucs else 0.5


def auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Share of (1, 0) pairs of rows that the scores put in order; ties count half."""
    ranks = pd.Series(scores).rank().to_numpy()
    ones = int(label.sum())
    return float((ranks[label].sum() - ones * (ones + 1) / 2) / (ones * (len(label) - ones)))
