from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mtl_zoo.heads._propensity import CounterfactualRisk, weighed_rows
from mtl_zoo.tasks import Task


@keras.saving.register_keras_serializable(package="mtl_zoo")
@dataclasses.dataclass(frozen=True)
class InversePropensity(CounterfactualRisk):
    """The head of ESCM2-IPS: `EntireSpace`, and the clicked rows' conversion loss weighed by the inverse click rate.

    With `o` the click, `o_hat` its score, `delta = BCE(conversion, pCVR)` and `sg` a stopped gradient:

        loss = L_CTR + lambda_c * R + lambda_g * L_CTCVR
        R    = mean over impressions of o * delta / sg(max(o_hat, min_propensity))

    `R` estimates the conversion loss that all impressions would have, without bias if `o_hat` is right. It has no
    gradient with respect to the click's tower. An impression counts in it where the click is observed and, if it
    happened, the conversion too.

    Outputs are those of `EntireSpace`; losses and loss weights, for tasks `click` and `conversion`: `click`,
    `conversion` (`R`; by default `lambda_c` times its task's weight) and `click_and_conversion` (`lambda_g` times the
    conversion task's weight).

    Args:
        lambda_c: Default weight of `R`.
        lambda_g: Default weight of the product's loss. With `lambda_c=0, lambda_g=1` the head is `EntireSpace`.
        min_propensity: Lower bound of `o_hat` in `R`; no row weighs more than its inverse.
        self_normalized: Divide `R` by the sum of the weights `o / sg(o_hat)` instead of the number of impressions:
            a little bias for less variance.

    Reference: Wang et al., SIGIR 2022, arXiv:2204.05125.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.heads import InversePropensity
    >>> tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click")]
    >>> InversePropensity(lambda_c=0.1, lambda_g=1.0).loss_weights(tasks)
    {'click': 1.0, 'conversion': 0.1, 'click_and_conversion': 1.0}
    """

    self_normalized: bool = False

    def risk(
        self,
        tasks: Sequence[Task],
        logits: Mapping[str, Any],
        errors: Any,
        clicked: Any,
        impressions: Any,
        inverse: Any,
    ) -> tuple[Any, Any]:
        return weighed_rows(errors, clicked, impressions, inverse, self.self_normalized)
