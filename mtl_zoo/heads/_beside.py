"""A head for tasks of the backbone's towers; beside them tasks that compare a row's two sides, or have no label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, RowLosses, observed, row_weight
from mtl_zoo.losses import Batch
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@dataclasses.dataclass(frozen=True)
class BesideHead(Head):
    """What `given` says of the tasks that read towers; the others have losses of their own names.

    Tasks that compare sides have outputs too, whose logits the model makes from the features of each side. Tasks
    without a label have no outputs: what their losses are made of is among the logits in training alone.

    Args:
        given: The head of the tasks that read towers.
    """

    given: Head

    def tower_names(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return self.given.tower_names(_of_towers(tasks)) if _of_towers(tasks) else ()

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        return (*self._asked("outputs", tasks, ()), *_of_sides(tasks))

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        return {**self._asked("losses", tasks, {}), **{output.name: output for output in _of_others(tasks)}}

    def loss_weights(self, tasks: Sequence[Task]) -> dict[str, float]:
        own = {output.name: output.task.loss_weight for output in _of_others(tasks)}
        return {**self._asked("loss_weights", tasks, {}), **own}

    def auxiliary(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return self._asked("auxiliary", tasks, ())

    def default_losses(self, tasks: Sequence[Task]) -> dict[str, Any]:
        own = {output.name: output.task.loss_name for output in _of_others(tasks)}
        return {**self._asked("default_losses", tasks, {}), **own}

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        return self._asked("logits", tasks, {}, towers, tower_units, *([biases] if biases else []))

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        own = {output.name: observed(output.task, labels) for output in _of_sides(tasks)}
        return {**self._asked("targets", tasks, {}, labels), **own}

    def label_issues(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> list[str]:
        return self._asked("label_issues", tasks, [], labels)

    def loss_rows(
        self,
        tasks: Sequence[Task],
        batch: Batch,
        targets: Mapping[str, tuple[Any, Any]],
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> dict[str, tuple[Any, Any]]:
        rows = self._asked("loss_rows", tasks, {}, batch, targets, logits, loss_functions)
        own = self.plain_loss_rows({o.name: o for o in _of_sides(tasks)}, (), batch, targets, logits, loss_functions)
        unlabelled = {
            o.name: (
                loss_functions[o.name](ops.zeros_like(logits[o.name][:, 0]), logits[o.name], batch),
                o.task.weights(logits[o.name], batch.labels, tasks) * row_weight(batch.weights, o.task),
            )
            for o in _unlabelled(tasks)
            if o.name in logits
        }
        return {**rows, **own, **unlabelled}

    def measures(self, tasks: Sequence[Task]) -> dict[str, Task]:
        return {f"{o.name}_{measure}": o.task for o in _unlabelled(tasks) for measure in o.task.measures}

    def row_losses(
        self,
        tasks: Sequence[Task],
        batch: Batch,
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> RowLosses:
        found = super().row_losses(tasks, batch, logits, loss_functions)
        for output in _unlabelled(tasks):
            if output.name in logits:
                measured = output.task.measured(logits[output.name], batch.labels, tasks)
                found.measures.update({f"{output.name}_{name}": rows for name, rows in measured.items()})
        return found

    def penalty_rows(
        self, tasks: Sequence[Task], labels: Mapping[str, Any], logits: Mapping[str, Any], weights: Any
    ) -> dict[str, tuple[Any, Any]]:
        return self._asked("penalty_rows", tasks, {}, labels, logits, weights)

    def _asked(self, method: str, tasks: Sequence[Task], nothing: Any, *arguments: Any) -> Any:
        """What the head given answers for its tasks; `nothing` where there are none."""
        own = _of_towers(tasks)
        return getattr(self.given, method)(own, *arguments) if own else nothing


def beside(head: Head, tasks: Sequence[Task]) -> Head:
    """The head itself, or what asks it for the tasks that read towers alone, where there are others.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import Towers, beside
    >>> head = Towers()
    >>> beside(head, [BinaryTask("click")]) is head
    True
    """
    return BesideHead(head) if len(_of_towers(tasks)) < len(tasks) else head


def _of_towers(tasks: Sequence[Task]) -> tuple[Task, ...]:
    return tuple(task for task in tasks if task.is_labelled and not task.compares_sides)


def _of_sides(tasks: Sequence[Task]) -> list[Output]:
    return [Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks if task.compares_sides]


def _unlabelled(tasks: Sequence[Task]) -> list[Any]:
    return [Output(task.name, task, IMPRESSIONS) for task in tasks if not task.is_labelled]


def _of_others(tasks: Sequence[Task]) -> list[Output]:
    return [*_of_sides(tasks), *_unlabelled(tasks)]
