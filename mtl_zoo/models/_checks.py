"""Labels and weights in memory, looked at before training, and class weights as weights of rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks import Task

logger = logging.getLogger(__name__)


def check_labels(model: Any, y: Mapping[str, Any], argument: str = "y", whole: bool = True) -> None:
    """Refuses arrays that are no labels of the model's tasks.

    Args:
        model: A model of the zoo.
        y: Arrays by task name, and sample-space columns.
        argument: What the user calls them.
        whole: They are what a model is trained on: each task must have an observed label.
    """
    for task in model.labelled_tasks:
        values = np.asarray(y[task.name])
        if values.dtype.kind not in "fiub":
            raise ValueError(
                f"`{argument}[{task.name!r}]` must be numbers, with NaN where not observed. Received: dtype "
                f"{values.dtype}, sample {check.sample_values(values.ravel())}"
            )
        values = values.astype("float64").ravel()
        seen = values[~np.isnan(values)]
        if whole and not len(seen):
            raise ValueError(
                f"`{argument}[{task.name!r}]` must have an observed label. Received: all {len(values)} are NaN"
            )
        wrong = seen[~task.is_label(seen)]
        if len(wrong):
            raise ValueError(
                f"`{argument}[{task.name!r}]` must be {task.label_rule}. Received {len(wrong)} other values: "
                f"{check.sample_values(wrong)}"
            )
        space = task.sample_space
        if whole and space is not None and not np.any(np.asarray(y[space], "float64") == 1):
            raise ValueError(
                f"`{argument}[{space!r}]`, the sample space of task {task.name!r}, must be 1 somewhere. "
                "Received: never 1"
            )
    if whole:
        for issue in model.head.label_issues(model.tasks, y):
            logger.warning("%s", issue)


def check_weights(weights: Any, rows: int, argument: str = "sample_weight") -> None:
    """Refuses what cannot be the weights of so many rows: one array, or arrays by task."""
    if isinstance(weights, Mapping):
        for name, values in weights.items():
            check_weights(values, rows, f"{argument}[{name!r}]")
        return
    if weights is None:
        return
    values = np.asarray(weights)
    if values.dtype.kind not in "fiub" or values.shape not in ((rows,), (rows, 1)):
        raise ValueError(
            f"`{argument}` must be one number for each of the {rows} rows. Received: shape {values.shape}, dtype "
            f"{values.dtype}"
        )
    values = values.astype("float64").ravel()
    bad = ~is_weight(values)
    if bad.any():
        raise ValueError(
            f"`{argument}` must hold numbers >= 0 that float32 can hold. Received {int(bad.sum())} others: "
            f"{check.sample_values(values[bad][:1000])}"
        )


def is_weight(values: np.ndarray) -> np.ndarray:
    """Which of these are finite and not negative, also as float32, and above 0 there if they are so here."""
    with np.errstate(over="ignore"):
        small = values.astype("float32")
    return np.isfinite(small) & (values >= 0) & ((small > 0) == (values > 0))


def weigh_classes(model: Any, y: Mapping[str, Any], weights: Any, class_weight: Any) -> dict[str, np.ndarray]:
    """Sample weights by task, times the weight of each row's class.

    Args:
        model: A model of the zoo.
        y: Arrays by task name.
        weights: The sample weights so far: None, one array, or arrays by task.
        class_weight: For each task, or for the only one, a dict of numbers by class; classes left out weigh 1.
    """
    by_task = {task.name: task for task in model.labelled_tasks}
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"`class_weight` must be a dict. Received: class_weight={class_weight!r}")
    if len(by_task) == 1 and not any(isinstance(value, Mapping) for value in class_weight.values()):
        class_weight = dict.fromkeys(by_task, class_weight)
    unknown = [name for name in class_weight if name not in by_task]
    if unknown or not all(isinstance(value, Mapping) for value in class_weight.values()):
        raise ValueError(
            "`class_weight` must hold a dict of weights by class for each task that it names. Received: class_weight="
            f"{class_weight!r}. Expected: names among {list(by_task)}"
        )
    weighed = {}
    for name, task in by_task.items():
        given = weights.get(name) if isinstance(weights, Mapping) else weights
        labels = np.asarray(y[name], "float64").ravel()
        rows = np.ones(len(labels)) if given is None else np.asarray(given, "float64").ravel()
        weighed[name] = (rows * _of_rows(task, labels, class_weight.get(name, {}))).astype("float32")
    return weighed


def _of_rows(task: Task, labels: np.ndarray, weights: Mapping[Any, Any]) -> np.ndarray:
    """The weight of each row's class."""
    classes = task.num_classes
    if weights and classes is None:
        raise ValueError(f"`class_weight` must name tasks that have classes. Received: {task.name!r}")
    by_class = np.ones(classes or 1)
    for position, weight in weights.items():
        check.check_choice(f"class_weight[{task.name!r}]", position, range(classes or 0))
        by_class[int(position)] = check.check_number(f"class_weight[{task.name!r}][{position!r}]", weight, minimum=0)
    return by_class[np.nan_to_num(labels).astype("int64")] if weights else np.ones(len(labels))
