from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, observed, task_tower
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class Towers(Head):
    """One tower a task: `logits_k = tower_k(x_k)`. Outputs, losses, metrics and labels bear the tasks' names.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import Towers
    >>> [output.name for output in Towers().outputs([BinaryTask("click"), BinaryTask("like")])]
    ['click', 'like']
    """

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        return tuple(Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks)

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        return {task.name: task_tower(task.name, task.units, towers[task.name], tower_units, biases) for task in tasks}

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {task.name: observed(task, labels) for task in tasks}
