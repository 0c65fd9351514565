"""Features that give a label away: one column that alone separates its 0s from its 1s."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from mtl_zoo.features._fitted import Training
from mtl_zoo.features.base import Feature
from mtl_zoo.tasks import Task

THRESHOLD = 0.999
MOST_ROWS = 200_000
# With fewer of either class, a separation is no evidence.
FEWEST_OF_A_CLASS = 10


def warn_of_leaks(
    features: Sequence[Feature],
    training: Training,
    labels: Mapping[str, np.ndarray],
    tasks: Sequence[Task],
    known: frozenset[tuple[str, str]] = frozenset(),
) -> frozenset[tuple[str, str]]:
    """Warns of each feature that alone predicts a binary label with AUC above .999.

    Args:
        features: The features to look at.
        training: Their columns.
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
        for feature in features:
            if (feature.name, task.name) in found:
                continue
            cells = training.places[feature.name][rows] if feature.name in training.places else rows
            found_auc = feature.leak_auc(training.columns[feature.source], cells, label)
            if found_auc is not None and found_auc > THRESHOLD:
                found.add((feature.name, task.name))
                warnings.warn(
                    f"`{feature.name}` alone predicts {task.label_column!r}, the label of task {task.name!r}, with AUC "
                    f"{found_auc:.4f}: it may be known only after the label is, or derived from it. Leave it out of "
                    "the features if so.",
                    UserWarning,
                    stacklevel=3,
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
