"""What a baseline is: one way to score one task from plain columns, fitted for each task alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.benchmark.baselines._columns import Columns, columns_of
from mtl_zoo.datasets import Dataset
from mtl_zoo.heads import Towers, observed
from mtl_zoo.tasks import Task

Kind = TypeVar("Kind", bound="type[Baseline]")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One task's rows that count: a column of labels and the columns to tell it from.

    Args:
        task: The task.
        columns: The rows' columns.
        labels: (rows,) float64.
        weights: (rows,) float64.

    Example:

    >>> import numpy as np, pandas as pd
    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.benchmark.baselines import Columns, Problem
    >>> columns = Columns(pd.DataFrame({"x": [1.0, 2.0]}), ("x",), ())
    >>> problem = Problem(BinaryTask("click"), columns, np.array([0.0, 1.0]), np.ones(2))
    >>> problem.score(np.array([[0.2], [0.7]]))
    1.0
    """

    task: Task
    columns: Columns
    labels: np.ndarray
    weights: np.ndarray

    @property
    def classes(self) -> int:
        """How many classes labels are positions of; 1 of a number."""
        return 2 if self.task.is_event else self.task.num_classes or 1

    def score(self, scores: np.ndarray) -> float:
        """The task's score of choice, by which epochs are chosen, too; better when higher, NaN where not defined."""
        metric = self.task.exact_metrics()[self.task.selection_metric]
        shown = scores if self.task.units > 1 else scores[:, 0]
        return metric.score(metric.function(self.labels, shown, self.weights))

    def scores_of(self, estimator: Any, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of a classifier's classes as scores of the task: those of classes that it never saw are 0."""
        every = np.zeros((len(probabilities), self.classes))
        every[:, np.asarray(estimator.classes_, "int64")] = probabilities
        return every[:, 1:] if self.task.units == 1 else every

    def mean_scores(self) -> np.ndarray:
        """(1, units): the label's mean, or the share of each class."""
        if self.task.units == 1:
            return np.array([[np.average(self.labels, weights=self.weights)]])
        shares = np.bincount(self.labels.astype("int64"), self.weights, minlength=self.classes)
        return (shares / shares.sum())[None]

    def constant(self, note: str = "") -> Predictor:
        """The same scores for every row: those of `mean_scores`."""
        mean = self.mean_scores()
        return Predictor(lambda columns: np.repeat(mean, len(columns), axis=0), mean.size, note)

    @property
    def nothing_to_learn(self) -> str:
        """Why no other scores than `constant` can be learned, if so."""
        if self.classes > 1 and len(np.unique(self.labels)) < 2:
            return "one class only"
        return "" if len(self.columns.frame.columns) else "no column that it reads"


class Predictor:
    """What came of a fit.

    Args:
        predict: `(columns) -> (rows, units)` scores.
        size: How many numbers it has learned.
        note: What it chose, in a few words.

    Example:

    >>> import numpy as np, pandas as pd
    >>> from mtl_zoo.benchmark.baselines import Columns, Predictor
    >>> half = Predictor(lambda columns: np.full((len(columns), 1), 0.5), size=1)
    >>> half.predict(Columns(pd.DataFrame({"x": [1.0, 2.0]}), ("x",), ())).tolist()
    [[0.5], [0.5]]
    """

    def __init__(self, predict: Callable[[Columns], np.ndarray], size: int, note: str = "") -> None:
        self.predict, self.size, self.note = predict, int(size), note


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Base of the baselines: frozen dataclasses of options, under `register_baseline`.

    Example:

    >>> from mtl_zoo.benchmark.baselines import BASELINES, Baseline
    >>> issubclass(BASELINES["boosting"], Baseline)
    True
    """

    name: ClassVar[str] = ""
    # Whether a seed changes anything.
    draws: ClassVar[bool] = False

    def fit(self, train: Problem, validation: Problem, seed: int) -> Predictor:
        """Learns from the training rows; what is to be chosen is chosen on the validation rows."""
        raise NotImplementedError(f"{type(self).__name__} must define `fit(train, validation, seed)`.")


BASELINES: Registry[type[Baseline]] = Registry("baseline")


def register_baseline(name: str) -> Callable[[Kind], Kind]:
    """Decorator: makes a baseline known by a name that no model has.

    Example:

    >>> from mtl_zoo.benchmark.baselines import register_baseline
    >>> @register_baseline("constant")
    ... class Mine:
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'constant', the name of Constant
    """

    def register(cls: Kind) -> Kind:
        BASELINES.add(name, cls)
        cls.name = name
        return cls

    return register


def list_baselines() -> list[str]:
    """The names of the baselines, the plainest first.

    Example:

    >>> from mtl_zoo.benchmark.baselines import list_baselines
    >>> list_baselines()
    ['constant', 'popularity', 'linear', 'boosting']
    """
    order = ("constant", "popularity", "linear", "boosting")
    return sorted(BASELINES, key=lambda name: (order.index(name) if name in order else len(order), name))


class Fitted:
    """A baseline fitted for every task of a data set, which is evaluated as a model is.

    Args:
        tasks: The tasks.
        predictors: What was fitted, by task.

    Attributes:
        outputs_info: One output a task.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Constant, fit_baseline
    >>> from mtl_zoo.datasets import load_dataset
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> fitted, columns = fit_baseline(Constant(), data)
    >>> rate = fitted.predict(columns["test"])["click"][0, 0]
    >>> bool(abs(rate - data.train.labels["click"].mean()) < 1e-6)
    True
    """

    independent_tasks = True

    def __init__(self, tasks: tuple[Task, ...], predictors: Mapping[str, Predictor]) -> None:
        self.tasks, self.predictors = tasks, dict(predictors)
        self.outputs_info = Towers().outputs(tasks)

    @property
    def labelled_tasks(self) -> tuple[Task, ...]:
        """As those of a model: all, since a data set's tasks have labels."""
        return self.tasks

    def targets(self, labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """As those of a model: labels by output, and which rows count."""
        return Towers().targets(self.tasks, labels)

    def predict(self, columns: Columns) -> dict[str, np.ndarray]:
        """Scores by task, (rows, units)."""
        return {name: found.predict(columns) for name, found in self.predictors.items()}

    @property
    def size(self) -> int:
        """How many numbers all tasks' predictors have learned."""
        return sum(found.size for found in self.predictors.values())

    @property
    def notes(self) -> dict[str, str]:
        """What was chosen, by task, where there is something to say."""
        return {name: found.note for name, found in self.predictors.items() if found.note}


def fit_baseline(
    baseline: Baseline,
    dataset: Dataset,
    *,
    seed: int = 0,
    features: Any = None,
    columns: Mapping[str, Columns] | None = None,
    told: Callable[[str], None] = lambda task: None,
) -> tuple[Fitted, Mapping[str, Columns]]:
    """Fits a baseline for each task, on the rows that count for it.

    Args:
        baseline: Such as `Boosting()`.
        dataset: The data.
        seed: Of what the baseline draws.
        features: Features whose columns it may read. Default: all of the data set's.
        columns: What `columns_of` gave, if it was called before.
        told: Called with each task's name once it is fitted.

    Returns:
        What was fitted, and the columns of each split, which its `predict` takes.

    Raises:
        ValueError: If a task has no observed row in the training split, or its labels are of no kind that a baseline
            can learn.

    Example:

    >>> from mtl_zoo.benchmark.baselines import Popularity, fit_baseline
    >>> from mtl_zoo.datasets import load_dataset
    >>> fitted, columns = fit_baseline(Popularity(), load_dataset("synthetic_funnel", size="small"))
    >>> sorted(fitted.predict(columns["test"]))
    ['click', 'conversion']
    """
    columns = columns_of(dataset, features or dataset.features) if columns is None else columns
    predictors = {}
    for task in dataset.tasks:
        if task.compares_sides or getattr(task, "soft", False):
            raise ValueError(
                f"`tasks` must have labels that a baseline can learn: 0 and 1, classes, or numbers. Received: {task!r}"
            )
        train, validation = (_problem(task, dataset.splits[name], columns[name]) for name in ("train", "validation"))
        if not len(train.labels):
            raise ValueError(f"`{task.name}` must be observed in the training rows. Received: no such row")
        predictors[task.name] = baseline.fit(train, validation, seed)
        told(task.name)
    return Fitted(dataset.tasks, predictors), columns


def _problem(task: Task, split: Any, columns: Columns) -> Problem:
    labels, counts = (keras.ops.convert_to_numpy(part) for part in observed(task, split.labels))
    weights = split.weights.get(task.name) if isinstance(split.weights, Mapping) else split.weights
    every = np.ones(len(labels)) if weights is None else np.asarray(weights, "float64").reshape(-1)
    rows = (counts > 0) & (every > 0)
    return Problem(task, columns.rows(rows), labels[rows].astype("float64"), every[rows])
