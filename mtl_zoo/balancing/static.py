from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing, check_by_loss
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("static")
class Static(LossBalancing):
    """Static weights: a constant for every loss, the baseline with which every other method must be compared.

        sum_k w_k L_k

    They are multiplied by `loss_weights`, so that a sweep of weights changes one argument. By default every weight is
    1, which is the plain sum. With Adam a parameter that only one task reaches moves in the same way for every constant
    `w_k`, so static weights act on shared parameters.

    Args:
        weights: The weight of every loss, as a dict of numbers >= 0 by name. None means 1 for all, and 0 leaves a loss
            out.
        name: The method's name in Keras.

    Raises:
        ValueError: If a weight is not a number or is negative; when the model is compiled, if a name is not a loss or a
            loss is missing.

    Example:

    >>> from mtl_zoo.balancing import Static
    >>> Static({"click": 1.0, "conversion": 0.3}).get_config()["weights"]
    {'click': 1.0, 'conversion': 0.3}

    Reference: as the baseline, Xin et al., "Do Current Multi-Task Optimization Methods in Deep Learning Even Help?",
    NeurIPS 2022.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, name: str | None = None) -> None:
        super().__init__(name)
        # Not under the argument's name: the `weights` of a Keras layer are its variables.
        self.given = check_by_loss("weights", weights, minimum=0)

    def make_state(self, count: int) -> None:
        self.values = self.by_loss("weights", self.given, 1.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        return ops.convert_to_tensor(self.values, "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "weights": None if self.given is None else dict(self.given)}
