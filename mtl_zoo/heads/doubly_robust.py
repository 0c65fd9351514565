from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo.heads._base import Biases, task_tower
from mtl_zoo.heads._funnel import free_name
from mtl_zoo.heads._propensity import CounterfactualRisk, flat
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class DoublyRobust(CounterfactualRisk):
    """The head of ESCM2-DR: `EntireSpace`, and a conversion loss on all impressions that a tower of its own imputes.

    With `o` the click, `o_hat` its score, `delta = BCE(conversion, pCVR)`, the imputed `d_hat = softplus(logit)` of one
    more tower, `e = delta - d_hat`, and `sg` a stopped gradient:

        loss = L_CTR + lambda_c * R + lambda_g * L_CTCVR
        w    = o / sg(max(o_hat, min_propensity))
        R    = mean over impressions of (d_hat + w * e) + mean over impressions of (w * e^2)

    The first mean estimates the conversion loss that all impressions would have, without bias if either `o_hat` or
    `d_hat` is right; the second fits `d_hat`. `R` has no gradient with respect to the click's tower. An impression
    counts in it where the click is observed and, if it happened, the conversion too.

    Outputs are those of `EntireSpace`; the imputation's logit is only for the loss. Losses and loss weights as in
    `InversePropensity`.

    Args:
        lambda_c: Default weight of `R`.
        lambda_g: Default weight of the product's loss. With `lambda_c=0, lambda_g=1` the head is `EntireSpace`.
        min_propensity: Lower bound of `o_hat` in `R`; no row weighs more than its inverse.
        joint: Gradients go wherever the formula has them. False: the first mean moves the conversion's tower only, the
            second the imputation's only.

    Reference: Wang et al., SIGIR 2022, arXiv:2204.05125.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import DoublyRobust
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> DoublyRobust().tower_names(tasks)
    ('click', 'conversion', 'conversion_imputation')
    """

    joint: bool = True

    def imputation(self, tasks: Sequence[Task]) -> str:
        """The name of the imputation's tower and logit."""
        _, conversion = self.funnel(tasks)
        return free_name(tasks, f"{conversion.name}_imputation", "the imputation's tower")

    def tower_names(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return (*super().tower_names(tasks), self.imputation(tasks))

    def auxiliary(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return (self.imputation(tasks),)

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        name = self.imputation(tasks)
        return {
            **super().logits(tasks, towers, tower_units, biases),
            name: task_tower(name, 1, towers[name], tower_units),
        }

    def risk(
        self,
        tasks: Sequence[Task],
        logits: Mapping[str, Any],
        errors: Any,
        clicked: Any,
        impressions: Any,
        inverse: Any,
    ) -> tuple[Any, Any]:
        imputed = ops.softplus(flat(logits[self.imputation(tasks)]))
        inverse = ops.where(clicked > 0, inverse, 0.0)
        fixed = (lambda x: x) if self.joint else ops.stop_gradient
        estimate = fixed(imputed) + inverse * (errors - fixed(imputed))
        return estimate + inverse * ops.square(fixed(errors) - imputed), impressions
