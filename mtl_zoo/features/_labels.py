"""Labels and weights: columns of a table become float32 arrays, NaN where a label was not observed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, SHOWN, STRING, Cells, Column, check_columns, refuse_values
from mtl_zoo.tasks import BinaryTask, MulticlassTask, Task, label_names


def label_columns(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The columns that labels and sample spaces are read from."""
    names = [task.label_column for task in tasks]
    names += [task.sample_space for task in tasks if task.sample_space is not None]
    return tuple(dict.fromkeys(names))


def weight_columns(tasks: Sequence[Task], sample_weight: str | None) -> tuple[str, ...]:
    names = [sample_weight, *(task.sample_weight for task in tasks)]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def read_labels(frame: pd.DataFrame, tasks: Sequence[Task], *, whole: bool = True) -> dict[str, np.ndarray]:
    """Label arrays by task name, and each sample-space column that is not a task's name.

    A table that is only a part of one (`whole=False`) may lack every label of a task.
    """
    check_columns(frame, label_columns(tasks))
    labels = {
        task.name: _read_label(task, Column(task.label_column, frame[task.label_column]), whole) for task in tasks
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


def _read_label(task: Task, column: Column, whole: bool) -> np.ndarray:
    if column.kind == EMPTY and not column.is_list:
        if not whole:
            return np.full(len(column.series), np.nan, dtype=np.float32)
        raise ValueError(
            f"`{column.name}` must hold a label of task {task.name!r}. Received: {len(column.series)} rows, all missing"
        )
    if isinstance(task, MulticlassTask):
        label = _class_positions(task, column)
    elif isinstance(task, BinaryTask):
        label = _binary(task, column)
    else:
        label = column.numbers()
        refuse_values(column.name, f"must hold finite labels for task {task.name!r}", np.isinf(label), label)
    if whole and np.isnan(label).all():
        raise ValueError(
            f"`{column.name}` must hold a label of task {task.name!r}. Received: {len(label)} rows, all missing"
        )
    return label.astype(np.float32)


def _binary(task: Task, column: Column) -> np.ndarray:
    rule = f"must be 0 or 1 (or missing) for task {task.name!r}"
    if column.kind == STRING and not column.is_list:
        cells = column.cells()
        texts = set(cells.values.tolist())
        advice = "Map it to 0 and 1: table[column].map({...})"
        if texts <= {"0", "1", "0.0", "1.0"}:
            advice = f"These are strings; convert them: table[{column.name!r}] = table[{column.name!r}].astype(float)"
        cells.refuse(rule, np.full(len(cells.values), True), advice)
        return np.full(len(column.series), np.nan)  # only '': missing
    label = column.numbers()
    refuse_values(column.name, rule, ~(np.isnan(label) | np.isin(label, (0, 1))), label)
    return label


def _class_positions(task: MulticlassTask, column: Column) -> np.ndarray:
    cells = column.cells()
    classes = Column(f"classes of {task.name}", pd.Series(task.class_labels, dtype=object)).cells()
    if classes.missing:
        raise ValueError(
            f"`classes` must not hold missing values. Received: classes={task.classes!r} for task {task.name!r}"
        )
    shown = f"{check.sample_values(classes.values)}, {len(classes.values)} classes"
    if (classes.kind == STRING) != (cells.kind == STRING) and len(cells.values):
        raise ValueError(
            f"`{column.name}` must hold the classes of task {task.name!r}, which are {SHOWN[classes.kind]}. "
            f"Received: {SHOWN[cells.kind]}, {check.sample_values(cells.values)}. Expected: {shown}"
        )
    positions = _positions(classes, cells)
    cells.refuse(f"must hold the classes of task {task.name!r}", positions < 0, f"Expected: {shown}")
    return np.append(positions.astype(np.float64), np.nan)[cells.codes]


def _positions(classes: Cells, cells: Cells) -> np.ndarray:
    dtype = object if classes.kind == STRING else np.float64
    known = pd.Index(classes.values[classes.codes].astype(dtype), dtype=dtype)
    return known.get_indexer(pd.Index(cells.values.astype(dtype), dtype=dtype))


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
    if whole and not weight.any():
        raise ValueError(f"`{column.name}` must hold a weight above 0. Received: {len(weight)} rows, all 0")
    return weight.astype(np.float32)
