"""Callbacks for `fit`: exact validation with the choice of the best epoch, and the time that training takes."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.evaluation.evaluate import (
    as_split,
    check_split,
    evaluate_scores,
    is_batched,
    rows_and_scores,
    rows_by_source,
)
from mtl_zoo.evaluation.gain import score_of
from mtl_zoo.features.sources import JointSources
from mtl_zoo.training.selection import Selection, WeightedScore, judged_outputs

_log = logging.getLogger(__name__)


class ExactValidation(keras.callbacks.Callback):
    """Evaluates exactly after every epoch, keeps the best weights, and stops when nothing improves.

    An epoch's score is the mean over tasks of AUC (binary), accuracy (multi-class) or 1 - NRMSE (regression, NRMSE =
    RMSE / standard deviation of the validation labels), on the rows where each task is defined. Outputs that are no
    task of their own, such as a funnel's product, do not vote unless `select` names them, so that every model is chosen
    by the same rule. Keras' own validation averages over batches, and its AUC is approximate.

    `select` takes another rule: `WeightedScore` (a weighted mean, other metrics), `PrimaryTask` (one task, with floors
    for the others) or `ParetoImprovement` (no task may get worse), all in `mtl_zoo.training`.

    Args:
        split: The validation split, or a table (pandas, pyarrow) or `JointSources` of tables if the model was made with
            a transform. An epoch's score is of all rows; the logs have those of each source, too. Or rows that are more
            than memory holds: a `TableStream`, or a finite `tf.data.Dataset` of `(inputs, labels)` or
            `(inputs, labels, weights)`. They are read anew after every epoch, a batch at a time, and the metrics are as
            exact: a score, a label and a weight of each row and task are kept meanwhile, 12 bytes (1.2 GB for a hundred
            million rows of one task).
        patience: Stop after this many epochs without a better score. None: train all epochs.
        per_task: Each task keeps its own best epoch, and training stops when none has improved for `patience` epochs.
            For models of independent networks, which give their parts by `model.task_variables(name)`; a shared stop
            would cost them what it does not cost a model with one best epoch.
        restore_best: After training put the best weights back. False leaves the last ones.
        batch_size: Rows a step of `predict`.
        select: Which of two epochs is better. None: `WeightedScore()`, the mean over tasks.

    Attributes:
        history: One dict an epoch: `epoch` (from 1), `score`, `tasks` ({task: score}, of those that are compared),
            `table` (of `evaluate`, with the metrics that choose), `seconds` (what the evaluation took); with
            `JointSources` also `sources` ({source: {task: score}}).
        best_epochs: {task: epoch (from 1) whose weights it has}.

    Raises:
        ValueError: `patience` < 1; the split is empty, or does not define the scores that are compared, or is a table
            and the model has no transform; `per_task` with a model whose tasks share weights, or with `select`;
            `select` names what the model does not have.
        TypeError: `select` is no rule.

    Example:

    >>> from mtl_zoo import create_model
    >>> from mtl_zoo.datasets import load_dataset
    >>> from mtl_zoo.training.callbacks import ExactValidation
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(8,))
    >>> model.compile("adam")
    >>> validation = ExactValidation(data.validation, patience=1)
    >>> _ = model.fit(data.train.batches(4096), epochs=1, verbose=0, callbacks=[validation])
    >>> validation.best_epochs
    {'click': 1, 'conversion': 1}
    """

    def __init__(
        self,
        split: Any,
        patience: int | None = None,
        per_task: bool = False,
        restore_best: bool = True,
        batch_size: int = 4096,
        select: Selection | None = None,
    ) -> None:
        super().__init__()
        if not is_batched(split):
            check_split(split)
        self.split = split
        self.patience = None if patience is None else check.check_int("patience", patience)
        self.per_task = bool(per_task)
        if select is not None and not isinstance(select, Selection):
            raise TypeError(
                f"`select` must be a WeightedScore, a PrimaryTask or a ParetoImprovement. Received: select={select!r}"
            )
        if select is not None and self.per_task:
            raise ValueError(
                f"`select` must be None with `per_task`, where each task chooses for itself. Received: {select!r}"
            )
        self.select = WeightedScore() if select is None else select
        self.restore_best = bool(restore_best)
        self.batch_size = check.check_int("batch_size", batch_size)
        self.history: list[dict[str, Any]] = []
        self.best_epochs: dict[str, int] = {}
        self._compared: dict[str, str] = {}
        self._best: dict[str, Any] = {}
        self._weights: dict[str, list[np.ndarray]] = {}
        self._own: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.history, self.best_epochs, self._best, self._weights = [], {}, {}, {}
        self._own, self._compared = {}, self.select.metrics_of(self.model)
        if self.per_task and not getattr(self.model, "independent_tasks", False):
            raise ValueError(
                "`per_task` needs a model whose tasks share no weights. "
                f"Received: per_task=True with {type(self.model).__name__}"
            )
        if self.per_task:
            self._own = {task.name: self.model.task_variables(task.name) for task in self.model.labelled_tasks}
        # Of batches, which may be more than memory holds, labels and scores alone are kept, and for an evaluation only.
        self._rows: Any = None if is_batched(self.split) else as_split(self.model, self.split, verbose=0)
        joint = self.split if isinstance(self.split, JointSources) else None
        self._rows_by_source = {} if joint is None or self._rows is None else rows_by_source(joint, self._rows)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        started = time.perf_counter()
        given = self.split if self._rows is None else self._rows
        rows, scores = rows_and_scores(self.model, given, self.batch_size)
        table = evaluate_scores(self.model, rows, scores, only=set(self._compared.values()))
        tasks = scores_of(self.model, table, self._compared)
        self.select.check_defined(tasks)
        score = self.select.score(tasks)
        improved = self._keep_best(epoch + 1, tasks, score)
        sources = self._scores_by_source(scores)
        seconds = time.perf_counter() - started
        self.history.append({"epoch": epoch + 1, "score": score, "tasks": tasks, "table": table, "seconds": seconds})
        if sources:
            self.history[-1]["sources"] = sources
        if logs is not None:
            logs["val_score"] = score
            logs.update({f"val_{task}_score": value for task, value in tasks.items()})
            logs.update({f"val_{s}_{task}_score": v for s, found in sources.items() for task, v in found.items()})
        _log.info("epoch %d: validation score %.5f%s", epoch + 1, score, " (best)" if improved else "")
        last_best = max(self.best_epochs.values())
        if self.patience is not None and epoch + 1 - last_best >= self.patience:
            self.model.stop_training = True

    def _scores_by_source(self, scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Each source's scores, of the tasks that its rows define."""
        found = {}
        for source, rows in self._rows_by_source.items():
            own = {name: values[rows] for name, values in scores.items()}
            table = evaluate_scores(self.model, self._rows.take_rows(rows), own, only=set(self._compared.values()))
            of_tasks = scores_of(self.model, table, self._compared)
            found[source] = {task: value for task, value in of_tasks.items() if not np.isnan(value)}
        return found

    def _keep_best(self, epoch: int, tasks: dict[str, float], score: float) -> bool:
        if not self.per_task:
            if self._best and not self.select.is_better(tasks, self._best):
                return False
            self._best = tasks
            # The weights are of one epoch, whichever tasks it was chosen by.
            self.best_epochs = dict.fromkeys((task.name for task in self.model.labelled_tasks), epoch)
            if self.restore_best:
                self._weights[""] = self.model.get_weights()
            return True
        improved = False
        for task, value in tasks.items():
            # A task without a defined score goes with the mean of the others.
            value = score if np.isnan(value) else value
            if value > self._best.get(task, -np.inf):
                improved = True
                self._best[task] = value
                self.best_epochs[task] = epoch
                if self.restore_best:
                    self._weights[task] = [keras.ops.convert_to_numpy(v) for v in self._own[task]]
        return improved

    def on_train_end(self, logs: Any = None) -> None:
        missed = self.select.missed(self._best) if self._best else []
        if missed:
            warnings.warn(f"No epoch kept all floors. Below in the best one: {', '.join(missed)}.", stacklevel=2)
        for task, weights in self._weights.items():
            if task:
                for variable, value in zip(self._own[task], weights, strict=True):
                    variable.assign(value)
            else:
                self.model.set_weights(weights)


def scores_of(model: Any, table: Any, metrics: Mapping[str, str]) -> dict[str, float]:
    """The scores of tasks, or of other outputs, by these metrics from a table of `evaluate`; higher is better."""
    values = {(row.task, row.metric): row.value for row in table.itertuples()}
    outputs = judged_outputs(model)
    return {name: score_of(metric, values[outputs.get(name, name), metric]) for name, metric in metrics.items()}


def task_scores(model: Any, table: Any) -> dict[str, float]:
    """Each task's score of choice (see `ExactValidation`) from a table of `evaluate`; higher is better.

    The score is that of the output that `judged_outputs` names.
    """
    return scores_of(model, table, WeightedScore().metrics_of(model))


class EpochTimer(keras.callbacks.Callback):
    """Seconds and rows of every epoch's training, without evaluation if it comes first in the list of callbacks.

    Args:
        rows: Rows of an epoch.

    Attributes:
        seconds: One number an epoch.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = check.check_int("rows", rows)
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._started)

    @property
    def total_seconds(self) -> float:
        return float(sum(self.seconds))

    @property
    def examples_per_second(self) -> float:
        """Over the epochs after the first, which also traces and compiles; over the first if it is the only one."""
        steady = self.seconds[1:] or self.seconds
        return self.rows * len(steady) / sum(steady) if steady else float("nan")
