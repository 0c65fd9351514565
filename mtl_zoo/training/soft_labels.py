"""Labels by a teacher for rows that have none: what a large model knows, for a small one that serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.evaluation.calibrate import platt
from mtl_zoo.features._columns import check_columns, read_table
from mtl_zoo.features._labels import read_labels
from mtl_zoo.tasks import Task

# What a probability is kept away from 0 and 1 by, so that it has a logit.
_LEAST = 1e-6


def soft_labels(
    table: Any, task: Task, teacher: Callable[[pd.DataFrame], Any], *, calibration_rows: int = 500, seed: int = 0
) -> pd.DataFrame:
    """A training table in which rows without a label of the task have the teacher's.

    With `p_i` the probability that the teacher gives row i, a row without a label gets, of a binary task,

        y_i = sigmoid(s log(p_i / (1 - p_i)) + b)

    where `s` and `b` are those that make the labels of up to `calibration_rows` labelled rows likeliest (Platt
    scaling): a prompt's "yes" has a rate of its own. The student's loss on such a row is the cross-entropy between
    `y_i` and its own probability. A teacher that does not rank the labelled rows better than by chance is refused. Of a
    regression the label is what the teacher gives.

    Observed labels stay as they are, and so do rows outside the task's sample space. Training rows only: a label by a
    teacher says nothing of how good the student is.

    Args:
        table: The training table, with some labels of the task missing.
        task: `BinaryTask(name, soft=True)`, or a task of regression.
        teacher: From rows of the table to one probability (of a regression, one value) a row: `probabilities` of a
            `PromptScorer`, or `lambda rows: large.predict(rows)["like"]`.
        calibration_rows: The most labelled rows that the teacher is asked about, drawn with `seed`. 0 takes its
            probabilities as they are.
        seed: Of their drawing.

    Returns:
        A DataFrame with the columns of `table` and its rows in their order.

    Raises:
        TypeError: `task` is no task; `teacher` is no callable.
        ValueError: No label is missing, or all are and `calibration_rows` is not 0; the teacher gives another number of
            values, or one that is no label of the task; it ranks the labelled rows no better than chance.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.training import soft_labels
    >>> table = pd.DataFrame({"title": ["Bambi", "Jaws", "Dumbo"], "child": [1, 0, None]})
    >>> by_letter = lambda rows: rows["title"].str.contains("b").map({True: 0.75, False: 0.25})
    >>> soft_labels(table, BinaryTask("child", soft=True), by_letter, calibration_rows=0)["child"].tolist()
    [1.0, 0.0, 0.75]

    Reference: Hinton, Vinyals and Dean, arXiv:1503.02531.
    """
    if not isinstance(task, Task):
        raise TypeError(f"`task` must be a task. Received: task={task!r:.200}")
    if not callable(teacher):
        raise TypeError(f"`teacher` must be a function of rows. Received: teacher={teacher!r:.200}")
    check.check_int("calibration_rows", calibration_rows, minimum=0)
    frame = read_table(table)
    check_columns(frame, [task.label_column])
    labels = frame[task.label_column].astype(object)
    is_bool = labels.map(lambda label: isinstance(label, bool | np.bool_)).to_numpy(bool)
    labels[is_bool] = labels[is_bool].astype(float)  # to stand beside a probability
    unlabelled = labels.isna().to_numpy() & _in_space(frame, task)
    if not unlabelled.any():
        raise ValueError(
            f"`table` must lack a label of task {task.name!r} in some row. Received: {len(frame)} rows with a label"
        )
    values = _asked(teacher, frame[unlabelled])
    if task.link == "sigmoid" and calibration_rows:
        values = _calibrated(values, frame, task, teacher, calibration_rows, seed)
    filled = labels.where(~unlabelled)
    filled[unlabelled] = values
    found = frame.assign(**{task.label_column: filled.infer_objects()})
    read_labels(found, (task,))  # refuses what is no label of the task
    return found


def _asked(teacher: Callable[[pd.DataFrame], Any], rows: pd.DataFrame) -> np.ndarray:
    values = np.asarray(teacher(rows), dtype=np.float64)
    if values.size != len(rows):
        raise ValueError(f"`teacher` must give one value a row. Received: shape {values.shape} for {len(rows)} rows")
    bad = ~np.isfinite(values.ravel())
    if bad.any():
        raise ValueError(f"`teacher` must give finite numbers. Received: {int(bad.sum())} others of {len(bad)}")
    return values.ravel()


def _calibrated(
    values: np.ndarray, frame: pd.DataFrame, task: Task, teacher: Callable[[pd.DataFrame], Any], most: int, seed: int
) -> np.ndarray:
    y = read_labels(frame, (task,))[task.name]
    rows = np.flatnonzero(_in_space(frame, task) & np.isin(y, (0, 1)))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    if len(np.unique(y[rows])) < 2:
        raise ValueError(
            f"`table` must hold labels 0 and 1 of task {task.name!r} to bring the teacher's probabilities to. "
            f"Received: {check.sample_values(np.unique(y[rows]))} in {len(rows)} rows. Say calibration_rows=0 to take "
            "them as they are."
        )
    try:
        scale = platt(_logits(_asked(teacher, frame.iloc[rows])), y[rows].astype(np.float64), np.ones(len(rows)))
    except ValueError as error:
        if "by chance" not in str(error):
            raise
        raise ValueError(
            f"`teacher` must rank the labelled rows of task {task.name!r} better than by chance. Received: a teacher "
            f"whose best slope is not above 0 on {len(rows)} rows"
        ) from error
    return 1 / (1 + np.exp(-(scale.slope * _logits(values) + scale.shift)))


def _in_space(frame: pd.DataFrame, task: Task) -> np.ndarray:
    if task.sample_space is None:
        return np.ones(len(frame), bool)
    check_columns(frame, [task.sample_space])
    return np.asarray((frame[task.sample_space] == 1).fillna(False), dtype=bool)


def _logits(p: np.ndarray) -> np.ndarray:
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"`teacher` must give probabilities. Received: {check.sample_values(p[(p < 0) | (p > 1)])}")
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)
