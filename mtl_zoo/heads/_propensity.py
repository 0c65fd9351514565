"""Losses of clicked rows that stand for all impressions: weighed by the inverse of the click's probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.heads._base import Head, Output
from mtl_zoo.heads.entire_space import EntireSpace
from mtl_zoo.losses import Batch
from mtl_zoo.tasks import Task


def flat(logits: Mapping[str, Any]) -> Any:
    return ops.reshape(ops.cast(logits, "float32"), (-1,))


def inverse_propensity(logits: Mapping[str, Any], min_propensity: float) -> Any:
    """`1 / max(p, min_propensity)` by row, with `p` the sigmoid of the logits. No gradient reaches them.

    `1 / p = 1 + e^-a`: no probability is formed.
    """
    return ops.minimum(1.0 + ops.exp(-ops.stop_gradient(flat(logits))), 1.0 / min_propensity)


def weighed_rows(errors: Any, rows: Any, impressions: Any, inverse: Any, self_normalized: bool) -> tuple[Any, Any]:
    """A risk over all impressions from the errors of some rows, as `(values, weights)`.

    Args:
        errors: (batch,) errors; those of other rows do not matter.
        rows: (batch,) sample weights of the rows that have an error, 0 elsewhere.
        impressions: (batch,) sample weights of all rows that count.
        inverse: (batch,) inverse propensities.
        self_normalized: Divide by the sum of the inverse propensities rather than by the number of impressions.
    """
    if self_normalized:
        return errors, rows * inverse
    return ops.where(rows > 0, errors * inverse, 0.0), impressions


@dataclasses.dataclass(frozen=True)
class CounterfactualRisk(EntireSpace):
    """Base of the ESCM2 heads: the losses of `EntireSpace` and `risk`, of the conversion, over all impressions."""

    lambda_c: float = 0.1
    lambda_g: float = 1.0
    min_propensity: float = 0.01

    def __post_init__(self) -> None:
        check.check_number("lambda_c", self.lambda_c, minimum=0)
        check.check_number("lambda_g", self.lambda_g, minimum=0)
        check.check_number("min_propensity", self.min_propensity, above=0, maximum=1)

    def losses(self, tasks: Sequence[Task]) -> dict[str, Output]:
        return Head.losses(self, tasks)

    def loss_weights(self, tasks: Sequence[Task]) -> dict[str, float]:
        _, conversion = self.funnel(tasks)
        weights = super().loss_weights(tasks)
        weights[conversion.name] *= self.lambda_c
        weights[self.product(tasks)] *= self.lambda_g
        return weights

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
        errors, clicked = rows[conversion.name]
        # The product counts where the click is known and, if it happened, the conversion: the risk's impressions.
        _, impressions = rows[self.product(tasks)]
        inverse = inverse_propensity(logits[click.name], self.min_propensity)
        rows[conversion.name] = self.risk(tasks, logits, errors, clicked, impressions, inverse)
        return rows

    def risk(
        self,
        tasks: Sequence[Task],
        logits: Mapping[str, Any],
        errors: Any,
        clicked: Any,
        impressions: Any,
        inverse: Any,
    ) -> tuple[Any, Any]:
        """The conversion's risk by row, with the rows' weights; arguments as in `weighed_rows`."""
        raise NotImplementedError
