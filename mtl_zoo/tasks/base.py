"""What all kinds of tasks share, and their registry.

A task says which column of the table holds its label, how labels are read and checked, how a logit becomes a score (its
link), which losses and metrics it has, what it weighs, and on which rows it is defined at all (its sample space).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry

# `(y (batch,), logits (batch, units)) -> (batch,)`; one with the attribute `needs_batch` takes the `Batch` as well.
RowLoss = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class ExactMetric:
    """A metric over whole columns, and what reports and the choice of an epoch must know of it.

    Args:
        function: `(y, score, weight) -> float`; NaN where the rows do not define it.
        undefined: Why it may be NaN, for a report's note.
        needs_both_classes: It is NaN where all labels are alike.
        direction: 1 where higher is better, -1 where lower is, 0 where neither is.
        offset: Epochs are compared by `offset + direction * value`, which is better when higher.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.tasks import ExactMetric
    >>> bias = ExactMetric(lambda y, score, weight: float(np.mean(score - y)), direction=0)
    >>> bias.function(np.array([1.0, 0.0]), np.array([0.5, 0.5]), None)
    0.0
    """

    function: Callable[[Any, Any, Any], float]
    undefined: str = "no rows of positive weight"
    needs_both_classes: bool = False
    direction: int = 1
    offset: float = 0.0

    def score(self, value: float) -> float:
        """The value as a score that is better when higher."""
        return self.offset + self.direction * value


class LabelColumn(Protocol):
    """A label's column of a table, as a kind of task reads it (see `mtl_zoo.features`)."""

    name: str

    @property
    def is_text(self) -> bool:
        """Whether its cells are strings."""

    def numbers(self) -> np.ndarray:
        """float64, NaN where missing; refuses strings."""

    def texts(self) -> set[str]:
        """The distinct strings."""

    def positions(self, task: Task, classes: Sequence[Any]) -> np.ndarray:
        """The position of each cell in `classes`, NaN where missing; refuses other cells."""

    def refuse(self, rule: str, bad: np.ndarray | None = None, advice: str = "") -> None:
        """Raises where rows are `bad` (all that hold a value, if None), with a sample of their cells."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What all tasks have in common. Use `BinaryTask`, `MulticlassTask` or `RegressionTask`.

    Args:
        name: Names the task everywhere: outputs, labels, losses, logs.
        label: The label's column in a table. Default: `name`.
        loss: Name of the loss; `"auto"` is the usual one for the kind of task. Losses take logits.
        loss_weight: Factor of this task's loss in the total.
        metrics: Names of metrics shown while training; `("auto",)` is the usual one for the kind of task.
        sample_space: Name of a 0/1 column; the task is defined only on rows where it is 1 (a conversion, given a
            click). Rows outside do not count in its loss and metrics. None: defined everywhere.
        sample_weight: Name of a column with non-negative weights for this task's rows. None: all weigh 1.

    A kind of task sets the attributes below and overrides the methods below them; `mtl_zoo/tasks/` has one file a kind.

    Attributes:
        kind: The kind's name in the registry, and in saved files.
        link: How a logit becomes a score: `"identity"`, or the name of an activation of Keras.
        losses: The losses by name, the usual one first.
        default_metrics: Names of the metrics that `"auto"` stands for.
        selection_metric: The exact metric that epochs are compared by.
        is_event: The label says whether something happened: it may be a step of a funnel, and has an AUC.
        is_gaussian: The loss is that of a normal distribution, up to its unknown variance.
        compares_sides: Its logits are made from the features of each `side`, and not from a tower of the backbone.
        is_labelled: It has a label, and an output. One without trains beside others, on rows without labels too.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import Task
    >>> task = BinaryTask("conversion", label="bought", sample_space="click")
    >>> isinstance(task, Task), task.label, task.sample_space
    (True, 'bought', 'click')
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
    losses: ClassVar[Mapping[str, RowLoss]]
    default_metrics: ClassVar[tuple[str, ...]]
    selection_metric: ClassVar[str]
    is_event: ClassVar[bool] = False
    is_gaussian: ClassVar[bool] = False
    compares_sides: ClassVar[bool] = False
    # How features that only training knows enter the logit: a `Bias`, of a kind that may have one.
    bias: ClassVar[Any] = None
    is_labelled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self) is Task:
            raise TypeError(f"`Task` is the common base. Use {_kinds()}.")
        check.check_name("name", self.name, keeps="label")
        for argument in ("label", "sample_space", "sample_weight"):
            value = getattr(self, argument)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"`{argument}` must name a column. Received: {argument}={value!r}")
        self.check_loss()
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
        return next(iter(self.losses)) if self.loss == "auto" else self.loss

    def check_loss(self) -> None:
        """Refuses a `loss` that is none of this kind's."""
        check.check_choice("loss", self.loss, ("auto", *self.losses))

    def loss_of(self, name: str) -> RowLoss:
        """The loss of that name, with the options that this task has for it."""
        return self.losses[name]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics with `"auto"` resolved."""
        return tuple(m for name in self.metrics for m in (self.default_metrics if name == "auto" else (name,)))

    @property
    def units(self) -> int:
        """Width of the task's output."""
        return 1

    @property
    def logit_units(self) -> int:
        """Width of what the losses and `scores` are given for a row."""
        return self.units

    def get_config(self) -> dict[str, Any]:
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config["metrics"] = list(self.metrics)
        return {"kind": self.kind, **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Task:
        return cls(**config)

    def arrays_config(self) -> dict[str, Any]:
        """The config by which caches of encoded arrays are known: without what only training asks for."""
        return self.get_config()

    def check_beside(self, tasks: Sequence[Task]) -> None:
        """Refuses other tasks that it cannot stand beside; nothing by default."""

    # What a task learns from the training labels.

    @property
    def is_fitted(self) -> bool:
        """Whether it knows all that it learns from the training labels."""
        return True

    def fit_label(self, y: np.ndarray) -> Task:
        """The task with what it learns from its observed training labels."""
        del y
        return self

    def fitted_like(self, other: Task) -> Task:
        """The task with what `other`, of the same label, has learned."""
        del other
        return self

    # From logits to scores, and from labels to what the loss compares with logits.

    def scores(self, logits: Any) -> Any:
        """Logits through the link: a probability, probabilities of classes, or the number itself."""
        import keras

        return logits if self.link == "identity" else keras.activations.get(self.link)(logits)

    def margins(self, logits: Any) -> Any:
        """What explanations add up to, (batch, units): the log-odds of probabilities, other scores themselves."""
        return self.scores(logits) if self.link == "identity" else logits

    def loss_labels(self, y: Any) -> Any:
        """Cleaned labels, (batch,), in the unit of the logits."""
        return y

    def loss_logits(self, logits: Any, output: str) -> Any:
        """The logits of an output, (batch, units), as the loss compares them with labels."""
        del output
        return logits

    def soft_loss(self, taught: Any, logits: Any, temperature: float) -> Any:
        """How far logits are from another model's scores, (batch,) and 0 where they agree: what distillation adds.

        Args:
            taught: The other model's scores, (batch, units).
            logits: (batch, units) float32, of which `scores` makes scores.
            temperature: By which the logits of both are divided, where scores are probabilities.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `soft_loss(taught, logits, temperature)`.")

    # Labels.

    @property
    def reads_text(self) -> bool:
        """Whether the label's column holds strings."""
        return False

    def read_label(self, column: LabelColumn) -> np.ndarray:
        """The labels of a column, (rows,) float64 with NaN where missing; refuses what is no label of this task."""
        label = column.numbers()
        column.refuse(f"must be {self.label_rule}, for task {self.name!r}", ~(np.isnan(label) | self.is_label(label)))
        return label

    @property
    def label_rule(self) -> str:
        """What labels in arrays must be, as the end of a sentence: "in 0..1, or NaN where not observed"."""
        raise NotImplementedError

    def is_label(self, values: Any) -> Any:
        """Which of these observed values, an array or a tensor, are labels of this task. Operators work on both."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int | None:
        """How many classes labels are positions of; None where labels are no classes."""
        return None

    def loss_factor(self, y: Any) -> Any:
        """What the losses of rows are multiplied by, from cleaned labels; None for 1."""
        del y
        return None

    def in_loss(self, y: Any) -> Any:
        """Which rows with these cleaned labels count in the loss; None for all."""
        del y
        return None

    def label_frequency(self, y: np.ndarray) -> float:
        """How much the observed labels vary, for methods that weigh tasks by it; 0 if they do not."""
        return float(np.var(y))

    def leaked_classes(self, y: np.ndarray) -> np.ndarray | None:
        """Observed labels as true and false, if a feature that tells the two apart gives the label away."""
        del y
        return None

    # Metrics.

    @classmethod
    def is_for(cls, values: np.ndarray) -> bool:
        """Whether a label column with these values, each once, is clearly of this kind. Kinds are asked in order."""
        return False

    @classmethod
    def keywords_of(cls, values: np.ndarray) -> dict[str, Any]:
        """Arguments that follow from a label column's values, each once."""
        return {}

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        """Keras metrics shown while training, by name: what makes one, given `name=`. They see scores."""
        raise NotImplementedError

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        """Metrics of `evaluate` by name, in the order of its rows."""
        raise NotImplementedError


def is_whole(values: Any) -> Any:
    """Which values of an array or a tensor are whole numbers."""
    with np.errstate(invalid="ignore"):  # of infinite ones
        return values % 1 == 0


TASKS: Registry[type[Task]] = Registry("kind")


def _kinds() -> str:
    *others, last = (cls.__name__ for cls in TASKS.in_order() if cls.is_labelled)
    return f"{', '.join(others)} or {last}"


def task_from_config(config: Mapping[str, Any]) -> Task:
    """The task that `get_config` describes.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import task_from_config
    >>> task_from_config(BinaryTask("click").get_config()) == BinaryTask("click")
    True
    """
    config = dict(config)
    return TASKS[config.pop("kind")].from_config(config)


def as_tasks(tasks: Task | Sequence[Task]) -> tuple[Task, ...]:
    """`tasks` as a checked tuple: at least one, different names, sample spaces that mean one thing.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import as_tasks
    >>> as_tasks(BinaryTask("click"))[0].name
    'click'
    """
    tasks = (tasks,) if isinstance(tasks, Task | str) else tuple(tasks)
    if not tasks:
        raise ValueError("`tasks` must hold at least one task. Received: tasks=()")
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"`tasks` must be {_kinds()}. Received: {task!r}")
    check.check_unique_names("tasks", [task.name for task in tasks])
    by_name = {task.name: task for task in tasks}
    for task in tasks:
        task.check_beside(tasks)
        other = by_name.get(task.sample_space or "")
        if other is not None and other.label_column != task.sample_space:
            raise ValueError(
                f"`sample_space` names a column, but {task.sample_space!r} is also the name of a task whose label is "
                f"column {other.label_column!r}. Received: sample_space={task.sample_space!r} for task {task.name!r}. "
                "Rename that task, or name its label column here."
            )
    return tasks


def fit_tasks(tasks: Sequence[Task], labels: Mapping[str, Any]) -> tuple[Task, ...]:
    """The tasks with what they learn from the observed rows of their training labels.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import RegressionTask
    >>> from mtl_zoo.tasks import fit_tasks
    >>> (task,) = fit_tasks([RegressionTask("price")], {"price": np.array([1.0, 3.0, np.nan])})
    >>> task.moments
    (2.0, 1.0)
    """
    fitted = []
    for task in tasks:
        if not task.is_labelled:
            fitted.append(task)
            continue
        y = np.asarray(labels[task.name], "float64").reshape(-1)
        counts = ~np.isnan(y)
        if task.sample_space is not None:
            counts &= np.asarray(labels[task.sample_space], "float64").reshape(-1) == 1
        fitted.append(task.fit_label(y[counts]) if counts.any() else task)
    return tuple(fitted)


def fitted_like(tasks: Sequence[Task], others: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks with what `others` of the same names have learned, where they have not.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import RegressionTask
    >>> from mtl_zoo.tasks import fit_tasks, fitted_like
    >>> fitted = fit_tasks([RegressionTask("price")], {"price": np.array([1.0, 3.0])})
    >>> fitted_like([RegressionTask("price")], fitted)[0].moments
    (2.0, 1.0)
    """
    by_name = {other.name: other for other in others}
    return tuple(t if t.is_fitted or t.name not in by_name else t.fitted_like(by_name[t.name]) for t in tasks)


def label_names(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The keys of a label dict: the names of tasks with labels, then the sample-space columns that are no task's name.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import label_names
    >>> label_names([BinaryTask("conversion", sample_space="click")])
    ('conversion', 'click')
    """
    names = [task.name for task in tasks if task.is_labelled]
    spaces = dict.fromkeys(task.sample_space for task in tasks if task.sample_space is not None)
    return (*names, *(space for space in spaces if space not in names))
