from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from mtl_zoo.heads._base import IMPRESSIONS, Head, Output, observed, task_tower
from mtl_zoo.layers.funnel_product import FunnelProduct
from mtl_zoo.tasks import BinaryTask


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

    def funnel(self, tasks):
        """The click and the conversion task."""
        by_label = {name: task for task in tasks for name in (task.label_column, task.name)}
        pairs = [
            (by_label[task.sample_space], task)
            for task in tasks
            if isinstance(task, BinaryTask) and isinstance(by_label.get(task.sample_space), BinaryTask)
        ]
        if len(pairs) != 1:
            raise ValueError(
                "`tasks` must hold one click and one conversion task for an entire-space head: two BinaryTasks, the "
                "second with the first as sample_space, such as BinaryTask('click') and "
                f"BinaryTask('conversion', sample_space='click'). Received {len(pairs)} such pairs in: {list(tasks)}"
            )
        return pairs[0]

    def _product_name(self, tasks):
        click, conversion = self.funnel(tasks)
        name = f"{click.name}_and_{conversion.name}"
        if any(task.name == name for task in tasks):
            raise ValueError(f"`tasks` must not use the name of the product's output. Received a task named {name!r}")
        return name

    def outputs(self, tasks):
        _, conversion = self.funnel(tasks)
        own = [Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks]
        return (*own, Output(self._product_name(tasks), conversion, IMPRESSIONS))

    def losses(self, tasks):
        _, conversion = self.funnel(tasks)
        return {output.name: output for output in self.outputs(tasks) if output.name != conversion.name}

    def logits(self, tasks, towers, tower_units):
        click, conversion = self.funnel(tasks)
        logits = {task.name: task_tower(task.name, task.units, towers[task.name], tower_units) for task in tasks}
        name = self._product_name(tasks)
        logits[name] = FunnelProduct(name=f"{name}_product")(logits[click.name], logits[conversion.name])
        return logits

    def targets(self, tasks, labels):
        click, conversion = self.funnel(tasks)
        targets = {task.name: observed(task, labels) for task in tasks}
        clicked, click_counts = targets[click.name]
        converted, conversion_counts = targets[conversion.name]
        # Not clicked means not converted, whatever the conversion label says; clicked with an unobserved conversion
        # leaves the product unobserved.
        counts = click_counts * ops.where(clicked == 1, conversion_counts, 1.0)
        targets[self._product_name(tasks)] = (clicked * converted, counts)
        return targets

    def label_issues(self, tasks, labels):
        click, conversion = self.funnel(tasks)
        clicked, converted = (np.asarray(labels[task.name], "float64").ravel() for task in (click, conversion))
        count = int(np.sum((clicked == 0) & (converted == 1)))
        if not count:
            return []
        return [
            f"{count} of {len(clicked)} rows have {conversion.name} = 1 with {click.name} = 0; they count as "
            f"{click.name}_and_{conversion.name} = 0."
        ]
