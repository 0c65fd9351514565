"""What every head answers. A head holds options only; the tasks are handed to it, so any model can take any head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo.layers.dense_stack import DenseStack
from mtl_zoo.losses import Batch, observed_mean
from mtl_zoo.options import MLP, as_mlp
from mtl_zoo.tasks import Task

IMPRESSIONS = "impressions"
# By a task's name, what makes the logit that is trained of its own: see `mtl_zoo.tasks.Bias`.
Biases = Mapping[str, Callable[[Any], Any]]


@dataclasses.dataclass(frozen=True)
class Output:
    """One of a model's outputs.

    Args:
        name: Its key in the dict that the model gives.
        task: The task whose kind and loss it has.
        space: The rows it is measured on: `"impressions"`, all of them, or the task's sample-space column.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import Output
    >>> Output("click", BinaryTask("click"), "impressions").name
    'click'
    """

    name: str
    task: Task
    space: str

    @property
    def kind(self) -> str:
        return self.task.kind

    @property
    def units(self) -> int:
        return self.task.units

    def scores(self, logits: Any) -> Any:
        """Logits through the task's link: a probability, probabilities of classes, or the number itself."""
        return self.task.scores(logits)


@dataclasses.dataclass(frozen=True)
class RowLosses:
    """What one forward pass is measured by, computed once for the objective and for the metrics.

    Args:
        targets: For each output, and each logit with a loss, its cleaned labels and which rows count, as `observed`
            gives them.
        rows: For each loss its values and the weights of the rows, two (batch,) tensors. In evaluation tasks without a
            label have none.
        measures: By the name of a log, what else tasks without a label are measured by, as `rows`.

    Example:

    >>> from mtl_zoo.heads import RowLosses
    >>> RowLosses(targets={}, rows={"click": ([0.5, 0.1], [1.0, 0.0])}).rows["click"][1]
    [1.0, 0.0]
    """

    targets: dict[str, tuple[Any, Any]]
    rows: dict[str, tuple[Any, Any]]
    measures: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    def means(self, local: bool = False) -> dict[str, Any]:
        """Every loss by name: a scalar, masked, and normalised over the global batch, or over these rows if `local`."""
        return {name: observed_mean(values, weights, local) for name, (values, weights) in self.rows.items()}


def observed(task: Task, labels: Mapping[str, Any]) -> tuple[Any, Any]:
    """A task's labels, (batch,) float32, and which of them count, (batch,) of 0 and 1.

    A row counts where its label is not NaN and, if the task has a sample space, where that column is 1. Labels that do
    not count become 0: zero weight times NaN would be NaN.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import observed
    >>> labels, counts = observed(BinaryTask("like"), {"like": np.array([1.0, np.nan], "float32")})
    >>> np.asarray(labels).tolist(), np.asarray(counts).tolist()
    ([1.0, 0.0], [1.0, 0.0])
    """
    y = _flat(labels[task.name])
    counts = ops.logical_not(ops.isnan(y))
    if task.sample_space is not None:
        counts = ops.logical_and(counts, ops.equal(_flat(labels[task.sample_space]), 1.0))
    return ops.where(counts, y, 0.0), ops.cast(counts, "float32")


def _flat(values: Any) -> Any:
    return ops.reshape(ops.cast(ops.convert_to_tensor(values), "float32"), (-1,))


class Head:
    """Base of heads: `tower_names` -> `logits` -> `targets` -> `row_losses`. Subclasses override what differs.

    Example:

    >>> from mtl_zoo import Towers
    >>> from mtl_zoo.heads import Head
    >>> isinstance(Towers(), Head)
    True
    """

    def tower_names(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        """The towers that a backbone must feed: by default one a task."""
        return tuple(task.name for task in tasks)

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        raise NotImplementedError

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        """Which output (or auxiliary logit that has a loss of its own) each loss is computed on, by the loss's name."""
        return {output.name: output for output in self.outputs(tasks)}

    def loss_weights(self, tasks: Sequence[Task]) -> dict[str, float]:
        """The default weight of each loss: its task's own."""
        return {name: output.task.loss_weight for name, output in self.losses(tasks).items()}

    def auxiliary(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        """Names of logits that only losses read: in the graph's dict, but no outputs of `predict`. None by default."""
        return ()

    def default_losses(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What each loss is unless `compile` is told otherwise: its task's own.

        A head that has a loss of its own gives a function here; see `TaskLoss` for what it takes.
        """
        return {name: output.task.loss_name for name, output in self.losses(tasks).items()}

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        """The graph from the backbone's tensors to the logits of every output, by name.

        Args:
            tasks: The tasks.
            towers: The backbone's tensors by tower.
            tower_units: Layer widths of each tower.
            biases: Of tasks with a bias, what takes its tower's logit to the one that outputs are made of. None is
                given where there is no such task.
        """
        raise NotImplementedError

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """For each output, and each logit of `losses`, its labels and which rows count, as `observed` gives them."""
        raise NotImplementedError

    def label_issues(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> list[str]:
        """Sentences about labels in memory that contradict each other; training goes on. None by default."""
        return []

    def row_losses(
        self,
        tasks: Sequence[Task],
        batch: Batch,
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> RowLosses:
        """The labels of a batch, cleaned, and every loss by row."""
        targets = self.targets(tasks, batch.labels)
        return RowLosses(targets, self.loss_rows(tasks, batch, targets, logits, loss_functions))

    def measures(self, tasks: Sequence[Task]) -> dict[str, Task]:
        """By the name of a log, tasks without a label that are measured by more than their loss. None by default."""
        return {}

    def loss_rows(
        self,
        tasks: Sequence[Task],
        batch: Batch,
        targets: Mapping[str, tuple[Any, Any]],
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> dict[str, tuple[Any, Any]]:
        """Every loss by row, with the weights of the rows: two (batch,) tensors by the loss's name."""
        outputs, auxiliary = self.losses(tasks), self.auxiliary(tasks)
        return self.plain_loss_rows(outputs, auxiliary, batch, targets, logits, loss_functions)

    @staticmethod
    def plain_loss_rows(
        outputs: Mapping[str, Output],
        auxiliary: Sequence[str],
        batch: Batch,
        targets: Mapping[str, tuple[Any, Any]],
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> dict[str, tuple[Any, Any]]:
        """`loss_rows` of these losses, each of which is its task's own on one output."""
        rows = {}
        for name, output in outputs.items():
            task, (y, counts) = output.task, targets[output.name]
            legal = task.is_label(y)
            y = ops.where(legal, y, 0.0)
            given = dataclasses.replace(batch, observed=counts)
            found = logits[output.name] if name in auxiliary else task.loss_logits(logits[output.name], name)
            values = loss_functions[name](task.loss_labels(y), found, given)
            factor = None if name in auxiliary else task.loss_factor(y)
            values = values if factor is None else values * factor
            # Labels that nobody could check before, of a tf.data.Dataset, end training by a loss that is not finite.
            chosen = None if name in auxiliary else task.in_loss(y)
            # A row that is no label of its task must end training.
            counts = counts if chosen is None else counts * ops.cast(ops.logical_or(chosen, ~legal), "float32")
            rows[name] = (ops.where(legal, values, float("nan")), counts * row_weight(batch.weights, task))
        return rows

    def penalty_rows(
        self, tasks: Sequence[Task], labels: Mapping[str, Any], logits: Mapping[str, Any], weights: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Terms of the objective that belong to no task, by row with the rows' weights, their factors included.

        They are added after the tasks' losses were weighed. None by default.
        """
        return {}

    def penalties(
        self, tasks: Sequence[Task], labels: Mapping[str, Any], logits: Mapping[str, Any], weights: Any
    ) -> dict[str, Any]:
        """Every penalty by name: a scalar, normalised over the global batch."""
        rows = self.penalty_rows(tasks, labels, logits, weights)
        return {name: observed_mean(values, row_weights) for name, (values, row_weights) in rows.items()}

    def get_config(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Head:
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def row_weight(weights: Any, task: Task) -> Any:
    """A task's sample weights by row: of a dict by task name, of one array for all tasks, or 1."""
    if isinstance(weights, Mapping):
        weights = weights.get(task.name)
    if weights is None:
        return 1.0
    weights = _flat(weights)
    # As with labels: a negative weight that nobody could check before must not train.
    return ops.where(weights >= 0, weights, float("nan"))


def tower_hidden(name: str, inputs: Any, tower_units: MLP | Sequence[int]) -> Any:
    """What a tower's linear layer reads: (batch, width) -> (batch, last width)."""
    tower = as_mlp("tower_units", tower_units, allow_empty=True)
    return DenseStack(tower, name=f"{name}_tower")(inputs) if tower.units else inputs


def tower_logits(name: str, units: int, hidden: Any, biases: Biases | None = None) -> Any:
    """A tower's linear layer, and its bias if it has one: (batch, width) -> (batch, units) logits in float32."""
    logits = keras.layers.Dense(units, name=f"{name}_head", dtype="float32")(hidden)
    return biases[name](logits) if biases and name in biases else logits


def task_tower(
    name: str, units: int, inputs: Any, tower_units: MLP | Sequence[int], biases: Biases | None = None
) -> Any:
    """An MLP and a linear layer: (batch, width) -> (batch, units) logits in float32."""
    return tower_logits(name, units, tower_hidden(name, inputs, tower_units), biases)
