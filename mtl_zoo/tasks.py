"""What a model predicts: one object a task, pure data.

A task says which column of the table holds its label, how a logit becomes a score (its link), which loss trains it,
what it weighs, and on which rows it is defined at all (its sample space).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from mtl_zoo import _validation as check


@dataclasses.dataclass(frozen=True)
class Task:
    """What `BinaryTask`, `MulticlassTask` and `RegressionTask` have in common. Use one of those.

    Args:
        name: Names the task everywhere: outputs, labels, losses, logs.
        label: The label's column in a table. Default: `name`.
        loss: Name of the loss; `"auto"` is the usual one for the kind of task. Losses take logits.
        loss_weight: Factor of this task's loss in the total.
        metrics: Names of metrics shown while training; `("auto",)` is the usual one for the kind of task.
        sample_space: Name of a 0/1 column; the task is defined only on rows where it is 1 (a conversion, given a
            click). Rows outside do not count in its loss and metrics. None: defined everywhere.
        sample_weight: Name of a column with non-negative weights for this task's rows. None: all weigh 1.
    """

    name: str
    label: str | None = dataclasses.field(default=None, kw_only=True)
    loss: str = dataclasses.field(default="auto", kw_only=True)
    loss_weight: float = dataclasses.field(default=1.0, kw_only=True)
    metrics: tuple[str, ...] = dataclasses.field(default=("auto",), kw_only=True)
    sample_space: str | None = dataclasses.field(default=None, kw_only=True)
    sample_weight: str | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str]
    link: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    default_metrics: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        if type(self) is Task:
            raise TypeError("`Task` is the common base. Use BinaryTask, MulticlassTask or RegressionTask.")
        check.check_name("name", self.name)
        for argument in ("label", "sample_space", "sample_weight"):
            value = getattr(self, argument)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"`{argument}` must name a column. Received: {argument}={value!r}")
        check.check_choice("loss", self.loss, ("auto", *self.losses))
        check.check_number("loss_weight", self.loss_weight, minimum=0)
        metrics = (self.metrics,) if isinstance(self.metrics, str) else tuple(self.metrics)
        object.__setattr__(self, "metrics", metrics)
        if self.sample_space is not None and self.sample_space == self.label_column:
            raise ValueError(
                f"`sample_space` must be another column than the task's label. "
                f"Received: sample_space={self.sample_space!r} for task {self.name!r}"
            )

    @property
    def label_column(self) -> str:
        return self.label or self.name

    @property
    def loss_name(self) -> str:
        """The loss with `"auto"` resolved."""
        return self.losses[0] if self.loss == "auto" else self.loss

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics with `"auto"` resolved."""
        return tuple(m for name in self.metrics for m in (self.default_metrics if name == "auto" else (name,)))

    @property
    def units(self) -> int:
        """Width of the task's output."""
        return 1

    def get_config(self) -> dict[str, Any]:
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config["metrics"] = list(self.metrics)
        return {"kind": self.kind, **config}


@dataclasses.dataclass(frozen=True)
class BinaryTask(Task):
    """A task with labels 0 and 1: click, conversion, like.

    The model's output is a logit `a` of shape (batch, 1) and the score is `1 / (1 + exp(-a))`. A NaN label means
    "not observed": the row does not count for this task.

    Losses: `"binary_crossentropy"` (default), `"binary_focal_crossentropy"`. See `Task` for the arguments.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> click = BinaryTask("click")
    >>> conversion = BinaryTask("conversion", sample_space="click", loss_weight=0.5)
    >>> conversion.label_column, conversion.loss_name
    ('conversion', 'binary_crossentropy')
    """

    kind: ClassVar[str] = "binary"
    link: ClassVar[str] = "sigmoid"
    losses: ClassVar[tuple[str, ...]] = ("binary_crossentropy", "binary_focal_crossentropy")
    default_metrics: ClassVar[tuple[str, ...]] = ("auc",)


@dataclasses.dataclass(frozen=True)
class MulticlassTask(Task):
    """A task with one of several classes as label.

    The model's output is one logit a class, shape (batch, number of classes); the scores are their softmax. In arrays a
    label is the class's position in `classes`, or NaN where not observed; in tables it is the class itself.

    Args:
        classes: Their number (labels are then 0, 1, ...), or the list of labels as they stand in the table.

    Losses: `"sparse_categorical_crossentropy"`. See `Task` for the other arguments.

    Example:

    >>> from mtl_zoo import MulticlassTask
    >>> MulticlassTask("effect", classes=("none", "mild", "severe")).units
    3
    """

    classes: int | tuple[Any, ...] = dataclasses.field(kw_only=True)

    kind: ClassVar[str] = "multiclass"
    link: ClassVar[str] = "softmax"
    losses: ClassVar[tuple[str, ...]] = ("sparse_categorical_crossentropy",)
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.classes, str) or not isinstance(self.classes, (int, Iterable)):
            raise ValueError(f"`classes` must be a number or a list of labels. Received: classes={self.classes!r}")
        if isinstance(self.classes, int):
            check.check_int("classes", self.classes, minimum=2)
        else:
            object.__setattr__(self, "classes", tuple(self.classes))
            if len(self.classes) < 2 or check.duplicates(self.classes):
                raise ValueError(f"`classes` must be at least two different labels. Received: classes={self.classes!r}")

    @property
    def units(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def class_labels(self) -> tuple[Any, ...]:
        return tuple(range(self.classes)) if isinstance(self.classes, int) else self.classes

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["classes"] = self.classes if isinstance(self.classes, int) else list(self.classes)
        return config


@dataclasses.dataclass(frozen=True)
class RegressionTask(Task):
    """A task with a number as label: rating, watch time.

    The model's output of shape (batch, 1) is the prediction itself. A NaN label means "not observed".

    Losses: `"mean_squared_error"` (default), `"mean_absolute_error"`, `"huber"` (delta 1). See `Task` for the
    arguments.

    Example:

    >>> from mtl_zoo import RegressionTask
    >>> RegressionTask("rating", loss="huber").link
    'identity'
    """

    kind: ClassVar[str] = "regression"
    link: ClassVar[str] = "identity"
    losses: ClassVar[tuple[str, ...]] = ("mean_squared_error", "mean_absolute_error", "huber")
    default_metrics: ClassVar[tuple[str, ...]] = ("rmse",)


_KINDS = {cls.kind: cls for cls in (BinaryTask, MulticlassTask, RegressionTask)}


def task_from_config(config: dict[str, Any]) -> Task:
    config = dict(config)
    cls = _KINDS[check.check_choice("kind", config.pop("kind"), tuple(_KINDS))]
    return cls(**config)


def as_tasks(tasks: Task | Sequence[Task]) -> tuple[Task, ...]:
    """`tasks` as a checked tuple: at least one, different names, sample spaces that mean one thing."""
    tasks = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
    if not tasks:
        raise ValueError("`tasks` must hold at least one task. Received: tasks=()")
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"`tasks` must be BinaryTask, MulticlassTask or RegressionTask. Received: {task!r}")
    check.check_unique_names("tasks", [task.name for task in tasks])
    by_name = {task.name: task for task in tasks}
    for task in tasks:
        other = by_name.get(task.sample_space or "")
        if other is not None and other.label_column != task.sample_space:
            raise ValueError(
                f"`sample_space` names a column, but {task.sample_space!r} is also the name of a task whose label is "
                f"column {other.label_column!r}. Received: sample_space={task.sample_space!r} for task {task.name!r}. "
                "Rename that task, or name its label column here."
            )
    return tasks


def label_names(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The keys of a label dict: the tasks' names, then the sample-space columns that are not a task's name."""
    names = [task.name for task in tasks]
    spaces = dict.fromkeys(task.sample_space for task in tasks if task.sample_space is not None)
    return (*names, *(space for space in spaces if space not in names))
