from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, observed, task_tower
from mtl_zoo.heads._funnel import and_then, click_and_conversion, contradictions, product_name
from mtl_zoo.layers.funnel_product import FunnelProduct
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class EntireSpace(Head):
    """The head of ESMM: a conversion rate learned on all impressions through its product with the click rate.

    With click logit `a` and conversion logit `b`, `pCTR = sigmoid(a)`, `pCVR = sigmoid(b)`, `pCTCVR = pCTR * pCVR`, and

        loss = BCE(click, pCTR) + BCE(click and conversion, pCTCVR), each over all impressions.

    There is no loss on pCVR itself. The product is formed on the logits (`FunnelProduct`).

    The tasks must hold one binary task whose `sample_space` is another binary task's label: the conversion and the
    click. With those names, for tasks `click` and `conversion`:

    * outputs and metrics: `click`, `conversion` (measured on clicked rows), `click_and_conversion`;
    * losses and loss weights: `click`, `click_and_conversion` (its default weight is the conversion task's);
    * labels: `click`, `conversion`; the product's label is derived, and a conversion without a click counts as none.

    Further tasks get a tower of their own.

    Reference: Ma et al., SIGIR 2018, arXiv:1804.07931.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import EntireSpace
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> list(EntireSpace().losses(tasks))
    ['click', 'click_and_conversion']
    """

    def funnel(self, tasks: Sequence[Task]) -> tuple[Task, Task]:
        """The click and the conversion task."""
        return click_and_conversion(tasks)

    def product(self, tasks: Sequence[Task]) -> str:
        """The name of the output that is the product of the two."""
        return product_name(tasks, *self.funnel(tasks))

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        _, conversion = self.funnel(tasks)
        own = [Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks]
        return (*own, Output(self.product(tasks), conversion, IMPRESSIONS))

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        _, conversion = self.funnel(tasks)
        return {output.name: output for output in self.outputs(tasks) if output.name != conversion.name}

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        click, conversion = self.funnel(tasks)
        logits = {
            task.name: task_tower(task.name, task.units, towers[task.name], tower_units, biases) for task in tasks
        }
        name = self.product(tasks)
        logits[name] = FunnelProduct(name=f"{name}_product")(logits[click.name], logits[conversion.name])
        return logits

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        click, conversion = self.funnel(tasks)
        targets = {task.name: observed(task, labels) for task in tasks}
        targets[self.product(tasks)] = and_then(targets[click.name], targets[conversion.name])
        return targets

    def label_issues(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> list[str]:
        return contradictions(labels, *self.funnel(tasks), self.product(tasks))
