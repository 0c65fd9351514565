from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, observed, row_weight, tower_hidden, tower_logits
from mtl_zoo.heads._funnel import and_then, contradictions, product_name, step_before, steps_to
from mtl_zoo.heads._propensity import flat
from mtl_zoo.layers.dense_stack import DenseStack
from mtl_zoo.layers.transfer_attention import TransferAttention
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class TransferChain(Head):
    """The head of AITM: each step of a funnel reads what the step before passes on, and predicts from end to end.

    With `q_t` the tower of step t (one binary task's `sample_space` is the step before):

        z_1 = q_1
        p_(t-1) = dropout(relu(Dense(z_(t-1))))
        z_t = TransferAttention(q_t, p_(t-1))
        y_t = sigmoid(Dense(z_t))
        loss = sum_t BCE_t + alpha * sum_(t>1) mean of max(y_t - y_(t-1), 0)

    `y_t` is the probability that step t and all before it happen, over all impressions; the second term, the
    calibrator, holds it below that of the step before. The attention is each step's own. The calibrator is a penalty:
    it is no loss and is added after weighing.

    For tasks `click`, `cart` (space `click`) and `conversion` (space `cart`):

    * outputs, metrics, losses and loss weights: `click`, `click_and_cart`, `click_and_conversion`. There is **no**
      output `conversion`: a score given the click is not modelled, and the quotient of two outputs may exceed 1;
    * labels: `click`, `cart`, `conversion`; a step whose step before did not happen counts as not happened.

    Two steps after one (a cart and a share, both after the click) read the same `z`. Tasks outside of a funnel, among
    them all that are not binary, have a tower of their own on their own sample space.

    Args:
        alpha: Factor of the calibrator.
        dropout: Share of the passed-on units dropped in training.

    Reference: Xi et al., KDD 2021, arXiv:2105.08489.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import TransferChain
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click"), BinaryTask("like")]
    >>> [output.name for output in TransferChain().outputs(tasks)]
    ['click', 'click_and_conversion', 'like']
    """

    alpha: float = 0.6
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check.check_number("alpha", self.alpha, minimum=0)
        check.check_number("dropout", self.dropout, minimum=0, below=1)

    def output_name(self, tasks: Sequence[Task], task: Task) -> str:
        """The name of a task's output: with that of its funnel's first step, if it is a later one."""
        first = steps_to(tasks, task)[0]
        return task.name if first is task else product_name(tasks, first, task)

    def later_steps(self, tasks: Sequence[Task]) -> list[tuple[Task, Task]]:
        """Pairs of a step and the one before, in the order in which they can be computed."""
        later = [(task, before) for task in tasks if (before := step_before(tasks, task)) is not None]
        return sorted(later, key=lambda pair: len(steps_to(tasks, pair[0])))

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        firsts = [(task, steps_to(tasks, task)[0]) for task in tasks]
        return tuple(
            Output(self.output_name(tasks, task), task, first.sample_space or IMPRESSIONS) for task, first in firsts
        )

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        hidden = {task.name: tower_hidden(task.name, towers[task.name], tower_units) for task in tasks}
        for task, before in self.later_steps(tasks):
            own = hidden[task.name]
            transfer = DenseStack(MLP((own.shape[-1],), dropout=self.dropout), name=f"{task.name}_passed")
            passed = transfer(hidden[before.name])
            hidden[task.name] = TransferAttention(name=f"{task.name}_transfer_attention")(own, passed)
        return {
            self.output_name(tasks, task): tower_logits(task.name, task.units, hidden[task.name], biases)
            for task in tasks
        }

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        by_task = {task.name: observed(task, labels) for task in tasks}
        for task, before in self.later_steps(tasks):
            by_task[task.name] = and_then(by_task[before.name], by_task[task.name])
        return {self.output_name(tasks, task): by_task[task.name] for task in tasks}

    def label_issues(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> list[str]:
        return [
            issue
            for task, before in self.later_steps(tasks)
            for issue in contradictions(labels, before, task, self.output_name(tasks, task))
        ]

    def penalty_rows(
        self, tasks: Sequence[Task], labels: Mapping[str, Any], logits: Mapping[str, Any], weights: Any
    ) -> dict[str, tuple[Any, Any]]:
        if not self.alpha:
            return {}
        score = {task.name: ops.sigmoid(flat(logits[self.output_name(tasks, task)])) for task in tasks}
        rows = {}
        for task, before in self.later_steps(tasks):
            excess = ops.relu(score[task.name] - score[before.name])
            rows[f"{task.name}_calibrator"] = (self.alpha * excess, ops.ones_like(excess) * row_weight(weights, task))
        return rows
