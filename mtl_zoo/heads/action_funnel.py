from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, observed, task_tower
from mtl_zoo.heads._funnel import and_then, click_action_conversion, contradictions, free_name, product_name
from mtl_zoo.layers.funnel_mixture import FunnelMixture
from mtl_zoo.layers.funnel_product import FunnelProduct
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class ActionFunnel(Head):
    """The head of ESM2: a conversion comes after an action (a cart, a wish list) or without it.

    With `y1 = p(click)`, `y2 = p(action given click)`, `y3 = p(conversion given action)` and `y4 = p(conversion given
    click, without action)`, each from a tower of its own:

        pCTAVR = y1 y2
        pCVR   = y2 y3 + (1 - y2) y4
        pCTCVR = y1 pCVR
        loss   = BCE(click, y1) + BCE(click and action, pCTAVR) + BCE(click and conversion, pCTCVR)

    each over all impressions, and formed on the logits (`FunnelProduct`, `FunnelMixture`).

    For tasks `click`, `cart` (space `click`) and `conversion` (space `click`), in this order or with `action="cart"`:

    * outputs and metrics: `click`, `cart` and `conversion` (pCVR; both measured on clicked rows), `click_and_cart`,
      `click_and_conversion`;
    * losses and loss weights: `click`, `click_and_cart`, `click_and_conversion` (by default their last task's weight).

    Where the conversion's own space is the action (`sample_space="cart"`) there is no conversion without it: `y4` is 0
    and has no tower, and the output `conversion` is `y3`, measured on the action's rows.

    Further tasks get a tower of their own.

    Args:
        action: Name of the action's task. Needed only where several could be it.

    Reference: Wen et al., SIGIR 2020, arXiv:1910.07099. The formulas were not checked against the paper's text.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import ActionFunnel
    >>> tasks = [BinaryTask("click"), BinaryTask("cart", sample_space="click")]
    >>> list(ActionFunnel().losses([*tasks, BinaryTask("conversion", sample_space="click")]))
    ['click', 'click_and_cart', 'click_and_conversion']
    """

    action: str | None = None

    def funnel(self, tasks: Sequence[Task]) -> tuple[Task, Task, Task]:
        """The click, the action and the conversion task."""
        return click_action_conversion(tasks, self.action)

    def products(self, tasks: Sequence[Task]) -> tuple[str, str]:
        """The names of the outputs that are products: click and action, click and conversion."""
        click, action, conversion = self.funnel(tasks)
        return product_name(tasks, click, action), product_name(tasks, click, conversion)

    def without_action(self, tasks: Sequence[Task]) -> str | None:
        """The name of the tower of `y4`, or None where the conversion's space is the action."""
        _, action, conversion = self.funnel(tasks)
        if conversion.sample_space == action.label_column:
            return None
        return free_name(tasks, f"{conversion.name}_without_{action.name}", "the tower without the action")

    def tower_names(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        other = self.without_action(tasks)
        return (*super().tower_names(tasks), *((other,) if other else ()))

    def outputs(self, tasks: Sequence[Task]) -> tuple[Output, ...]:
        _, *last = self.funnel(tasks)
        own = [Output(task.name, task, task.sample_space or IMPRESSIONS) for task in tasks]
        products = [Output(name, task, IMPRESSIONS) for name, task in zip(self.products(tasks), last, strict=True)]
        return (*own, *products)

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        _, *derived = (task.name for task in self.funnel(tasks))
        return {output.name: output for output in self.outputs(tasks) if output.name not in derived}

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        click, action, conversion = (task.name for task in self.funnel(tasks))
        with_action, with_conversion = self.products(tasks)
        other = self.without_action(tasks)
        logits = {
            task.name: task_tower(task.name, task.units, towers[task.name], tower_units, biases) for task in tasks
        }
        logits[with_action] = FunnelProduct(name=f"{with_action}_product")(logits[click], logits[action])
        before = with_action
        if other:
            without = task_tower(other, 1, towers[other], tower_units)
            mixture = FunnelMixture(name=f"{conversion}_with_or_without_{action}")
            logits[conversion] = mixture(logits[action], logits[conversion], without)
            before = click
        logits[with_conversion] = FunnelProduct(name=f"{with_conversion}_product")(logits[before], logits[conversion])
        return logits

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        click, action, conversion = (task.name for task in self.funnel(tasks))
        with_action, with_conversion = self.products(tasks)
        targets = {task.name: observed(task, labels) for task in tasks}
        targets[with_action] = and_then(targets[click], targets[action])
        before = click if self.without_action(tasks) else with_action
        targets[with_conversion] = and_then(targets[before], targets[conversion])
        return targets

    def label_issues(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> list[str]:
        click, action, conversion = self.funnel(tasks)
        with_action, with_conversion = self.products(tasks)
        before = click if self.without_action(tasks) else action
        return [
            *contradictions(labels, click, action, with_action),
            *contradictions(labels, before, conversion, with_conversion),
        ]
