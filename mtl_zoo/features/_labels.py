"""Labels and weights: columns of a table become float32 arrays, NaN where a label was not observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, SHOWN, STRING, Column, check_columns, refuse_values
from mtl_zoo.features.base import Feature
from mtl_zoo.tasks import Task, label_names


def refuse_unlabelled(tasks: Sequence[Task]) -> None:
    """Refuses tasks that have no column to read."""
    names = [task.name for task in tasks if not task.is_labelled]
    if names:
        raise ValueError(
            f"`tasks` of a transform must have labels. Received: {names}. Give a task without a label to the model: "
            "create_model(name, transform, [*transform.tasks, task])"
        )


def label_columns(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The columns that labels and sample spaces are read from."""
    names = [task.label_column for task in tasks if task.is_labelled]
    names += [task.sample_space for task in tasks if task.sample_space is not None]
    return tuple(dict.fromkeys(names))


def weight_columns(tasks: Sequence[Task], sample_weight: str | None) -> tuple[str, ...]:
    names = [sample_weight, *(task.sample_weight for task in tasks)]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def refuse_features(features: Sequence[Feature], tasks: Sequence[Task], sample_weight: str | None) -> None:
    """Refuses features that read a label, a sample space or a weight."""
    labels, weights = set(label_columns(tasks)), set(weight_columns(tasks, sample_weight))
    for feature in features:
        if feature.source in labels | weights:
            what = "a label or sample space" if feature.source in labels else "a sample weight"
            raise ValueError(
                f"`features` must not read {feature.source!r}, which is {what} of the tasks: it is not known when "
                f"the model predicts. Received: feature {feature.name!r}"
            )


def read_labels(frame: pd.DataFrame, tasks: Sequence[Task], *, whole: bool = True) -> dict[str, np.ndarray]:
    """Label arrays by task name, and each sample-space column that is not a task's name.

    A table that is only a part of one (`whole=False`) may lack every label of a task.
    """
    check_columns(frame, label_columns(tasks))
    labels = {
        task.name: _read_label(task, LabelColumn(task.label_column, frame[task.label_column]), whole) for task in tasks
    }
    for name in label_names(tasks)[len(tasks) :]:
        space = Column(name, frame[name]).numbers()
        allowed = np.isin(space, (0, 1))
        if name in (task.label_column for task in tasks):
            allowed |= np.isnan(space)  # the label of a task with another name: may be unobserved
        refuse_values(name, "must be 0 or 1, since it is a sample space", ~allowed, space)
        labels[name] = space.astype(np.float32)
    return labels


def check_spaces(labels: dict[str, np.ndarray], tasks: Sequence[Task]) -> None:
    """Refuses, in a training table, a sample space without rows or without a label of its task."""
    for task in tasks:
        if task.sample_space is None:
            continue
        inside = labels[task.sample_space] == 1
        if not inside.any():
            raise ValueError(
                f"`{task.sample_space}` must be 1 in some rows, since it is the sample space of task {task.name!r}. "
                f"Received: 0 of {len(inside)} rows"
            )
        if np.isnan(labels[task.name][inside]).all():
            raise ValueError(
                f"`{task.label_column}` must hold a label where {task.sample_space!r} is 1, the sample space of task "
                f"{task.name!r}. Received: {int(inside.sum())} such rows, all missing"
            )


class LabelColumn:
    """A label's column, as the kinds of tasks read it; see `mtl_zoo.tasks.base.LabelColumn`."""

    def __init__(self, name: str, series: pd.Series):
        self.name, self._column = name, Column(name, series)

    def __len__(self) -> int:
        return len(self._column.series)

    @property
    def is_empty(self) -> bool:
        return self._column.kind == EMPTY and not self._column.is_list

    @property
    def is_text(self) -> bool:
        return self._column.kind == STRING and not self._column.is_list

    def numbers(self) -> np.ndarray:
        if self.is_text and not self.texts():
            return np.full(len(self), np.nan)
        return self._column.numbers()

    def texts(self) -> set[str]:
        return set(self._column.cells().values.tolist())

    def refuse(self, rule: str, bad: np.ndarray | None = None, advice: str = "") -> None:
        if bad is not None:
            refuse_values(self.name, rule, bad, self.numbers(), advice)
            return
        cells = self._column.cells()
        cells.refuse(rule, np.full(len(cells.values), True), advice)

    def positions(self, task: Task, classes: Sequence[Any]) -> np.ndarray:
        cells = self._column.cells()
        known = Column(f"classes of {task.name}", pd.Series(classes, dtype=object)).cells()
        if known.missing:
            raise ValueError(
                f"`classes` must not hold missing values. Received: classes={classes!r} for task {task.name!r}"
            )
        shown = f"{check.sample_values(known.values)}, {len(known.values)} classes"
        if (known.kind == STRING) != (cells.kind == STRING) and len(cells.values):
            raise ValueError(
                f"`{self.name}` must hold the classes of task {task.name!r}, which are {SHOWN[known.kind]}. "
                f"Received: {SHOWN[cells.kind]}, {check.sample_values(cells.values)}. Expected: {shown}"
            )
        dtype = object if known.kind == STRING else np.float64
        index = pd.Index(known.values[known.codes].astype(dtype), dtype=dtype)
        found = index.get_indexer(pd.Index(cells.values.astype(dtype), dtype=dtype))
        cells.refuse(f"must hold the classes of task {task.name!r}", found < 0, f"Expected: {shown}")
        return np.append(found.astype(np.float64), np.nan)[cells.codes]


def _read_label(task: Task, column: LabelColumn, whole: bool) -> np.ndarray:
    label = np.full(len(column), np.nan) if column.is_empty else task.read_label(column)
    if whole and np.isnan(label).all():
        raise ValueError(
            f"`{column.name}` must hold a label of task {task.name!r}. Received: {len(label)} rows, all missing"
        )
    return label.astype(np.float32)


def read_weights(
    frame: pd.DataFrame, tasks: Sequence[Task], sample_weight: str | None, *, whole: bool = True
) -> np.ndarray | dict[str, np.ndarray] | None:
    """One array for all tasks, arrays by task where a task has a column of its own, or None.

    A table that is only a part of one (`whole=False`) may have weights that are all 0.
    """
    columns = weight_columns(tasks, sample_weight)
    check_columns(frame, columns)
    weights = {name: _read_weight(Column(name, frame[name]), whole) for name in columns}
    common = weights[sample_weight] if sample_weight is not None else np.ones(len(frame), dtype=np.float32)
    if any(task.sample_weight is not None for task in tasks):
        return {t.name: common * weights[t.sample_weight] if t.sample_weight else common for t in tasks}
    return None if sample_weight is None else common


def _read_weight(column: Column, whole: bool) -> np.ndarray:
    weight = column.numbers()
    bad = ~(np.isfinite(weight) & (weight >= 0))
    refuse_values(column.name, "must hold finite weights >= 0", bad, weight)
    with np.errstate(over="ignore"):
        small = weight.astype(np.float32)
    lost = np.isinf(small) | ((small == 0) & (weight > 0))
    refuse_values(column.name, "must hold weights that float32 can hold", lost, weight)
    if whole and not weight.any():
        raise ValueError(f"`{column.name}` must hold a weight above 0. Received: {len(weight)} rows, all 0")
    return weight.astype(np.float32)
