from __future__ import annotations

import dataclasses

import keras

from mtl_zoo.heads._base import IMPRESSIONS, Head, Output, observed, task_tower


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

    def outputs(self, tasks):
        return tuple(Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks)

    def logits(self, tasks, towers, tower_units):
        return {task.name: task_tower(task.name, task.units, towers[task.name], tower_units) for task in tasks}

    def targets(self, tasks, labels):
        return {task.name: observed(task, labels) for task in tasks}
