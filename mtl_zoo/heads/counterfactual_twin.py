from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.heads._base import IMPRESSIONS, Biases, Head, Output, row_weight, task_tower
from mtl_zoo.heads._funnel import free_name
from mtl_zoo.heads._propensity import flat, inverse_propensity, weighed_rows
from mtl_zoo.heads.entire_space import EntireSpace
from mtl_zoo.losses import Batch
from mtl_zoo.options import MLP
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class CounterfactualTwin(EntireSpace):
    """The head of DCMT: `EntireSpace`, with conversion losses on clicked rows and, by a twin tower, on the others.

    With `o` the click, `o_hat` its score, `r` the conversion (0 where there is no click), `r_hat` its score, `r_twin`
    the score of one more tower, and `sg` a stopped gradient:

        loss = L_CTR + L_CTCVR
             + lambda_c * mean of o * BCE(r, r_hat) / sg(o_hat)
             + lambda_c * mean of (1 - o) * BCE(1 - r, r_twin) / sg(1 - o_hat)
             + constraint * mean of |1 - (r_hat + r_twin)|

    all means over impressions. The twin predicts that there is no conversion, from the rows without click; the
    constraint ties the two. Neither conversion loss has a gradient with respect to the click's tower.

    Outputs are those of `EntireSpace`; the twin's logit is only for the losses. Losses and loss weights, for tasks
    `click` and `conversion`: `click`, `conversion`, `conversion_twin`, `click_and_conversion`; the last three weigh by
    default what the conversion task does, of which the conversion's and the twin's have `lambda_c` times that. The
    constraint is a penalty: it is no loss and is added after weighing.

    Args:
        lambda_c: Default weight of the conversion's and the twin's loss.
        constraint: Factor of the constraint.
        min_propensity: Lower bound of `o_hat` and of `1 - o_hat` in the two losses.
        self_normalized: Divide each of the two losses by the sum of its inverse propensities instead of the number of
            impressions. The paper is remembered to do so; this was not confirmed.

    Reference: Zhu et al., ICDE 2023, arXiv:2302.06141. The formulas were not checked against the paper's text.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import CounterfactualTwin
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> list(CounterfactualTwin().losses(tasks))
    ['click', 'conversion', 'click_and_conversion', 'conversion_twin']
    """

    constraint: float = 1e-3
    min_propensity: float = 0.01
    self_normalized: bool = False
    lambda_c: float = 0.1

    def __post_init__(self) -> None:
        check.check_number("lambda_c", self.lambda_c, minimum=0)
        check.check_number("constraint", self.constraint, minimum=0)
        check.check_number("min_propensity", self.min_propensity, above=0, maximum=1)

    def twin(self, tasks: Sequence[Task]) -> str:
        """The name of the twin's tower, logit and loss."""
        _, conversion = self.funnel(tasks)
        return free_name(tasks, f"{conversion.name}_twin", "the twin's tower")

    def tower_names(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return (*super().tower_names(tasks), self.twin(tasks))

    def auxiliary(self, tasks: Sequence[Task]) -> tuple[str, ...]:
        return (self.twin(tasks),)

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        _, conversion = self.funnel(tasks)
        return {**Head.losses(self, tasks), self.twin(tasks): Output(self.twin(tasks), conversion, IMPRESSIONS)}

    def loss_weights(self, tasks: Sequence[Task]) -> dict[str, float]:
        _, conversion = self.funnel(tasks)
        risks = (conversion.name, self.twin(tasks))
        return {name: w * self.lambda_c if name in risks else w for name, w in super().loss_weights(tasks).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CounterfactualTwin:
        # Files that do not say it are of before it was an argument.
        return cls(**{"lambda_c": 1.0, **config})

    def logits(
        self,
        tasks: Sequence[Task],
        towers: Mapping[str, Any],
        tower_units: MLP | Sequence[int],
        biases: Biases | None = None,
    ) -> dict[str, Any]:
        name = self.twin(tasks)
        return {
            **super().logits(tasks, towers, tower_units, biases),
            name: task_tower(name, 1, towers[name], tower_units),
        }

    def targets(self, tasks: Sequence[Task], labels: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        targets = super().targets(tasks, labels)
        click, _ = self.funnel(tasks)
        clicked, counts = targets[click.name]
        # Without a click there was no conversion, so 1 - r is 1 on every row that the twin learns from.
        targets[self.twin(tasks)] = (1.0 - clicked, counts * (1.0 - clicked))
        return targets

    def loss_rows(
        self,
        tasks: Sequence[Task],
        batch: Batch,
        targets: Mapping[str, tuple[Any, Any]],
        logits: Mapping[str, Any],
        loss_functions: Mapping[str, Callable[..., Any]],
    ) -> dict[str, tuple[Any, Any]]:
        rows = super().loss_rows(tasks, batch, targets, logits, loss_functions)
        click, conversion = self.funnel(tasks)
        _, impressions = rows[self.product(tasks)]
        a = logits[click.name]
        for name, logit in ((conversion.name, a), (self.twin(tasks), -a)):
            inverse = inverse_propensity(logit, self.min_propensity)
            rows[name] = weighed_rows(*rows[name], impressions, inverse, self.self_normalized)
        return rows

    def penalty_rows(
        self, tasks: Sequence[Task], labels: Mapping[str, Any], logits: Mapping[str, Any], weights: Any
    ) -> dict[str, tuple[Any, Any]]:
        if not self.constraint:
            return {}
        _, conversion = self.funnel(tasks)
        # 1 - (r_hat + r_twin), without the cancellation.
        gap = ops.abs(ops.sigmoid(-flat(logits[conversion.name])) - ops.sigmoid(flat(logits[self.twin(tasks)])))
        everywhere = ops.ones_like(gap) * row_weight(weights, conversion)
        return {f"{conversion.name}_constraint": (self.constraint * gap, everywhere)}
