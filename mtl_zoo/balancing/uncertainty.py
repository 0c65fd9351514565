from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.tasks import TASKS

FORMS = ("auto", "regression", "classification", "revised")


@register_balancing("uncertainty")
class Uncertainty(LossBalancing):
    """Uncertainty weighting: each task has a learned noise, and the noisier it is, the less it counts.

    With `s_k = log sigma_k^2`, learned beside the model by plain gradient descent on the same objective:

        regression:      sum_k 1/2 exp(-s_k) L_k + 1/2 s_k      weight 1/2 exp(-s_k)
        classification:  sum_k exp(-s_k) L_k + 1/2 s_k          weight exp(-s_k)
        revised:         sum_k L_k / (2 v_k) + log(1 + v_k)     weight 1 / (2 v_k), v_k = exp(s_k)

    At the optimum of `s_k` the first two forms weigh a task by `1 / (2 L_k)`: the weighted losses sum to T / 2, and the
    sum of the weights is not constant. A loss that is much smaller than another, such as that of a rare conversion, is
    raised by their ratio, which may or may not be wanted. `s_k` is kept in [-6, 6], since the weight of a loss near 0
    would grow without bound.

    Args:
        form: With `"auto"`, regression tasks have the first form and other tasks the second. With `"regression"`,
            `"classification"` or `"revised"`, all tasks have that form; the objective of the last one is never
            negative.
        learning_rate: Learning rate of the `s_k`, which have no weight decay.
        initial: Where the `s_k` start.
        name: The method's name in Keras.

    Raises:
        ValueError: If `form` is unknown or `learning_rate` is not above 0.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import Uncertainty
    >>> method = Uncertainty(learning_rate=0.5)
    >>> method.prepare(("click", "watch_time"), ("binary", "regression"))
    >>> for _ in range(100):
    ...     w = method.weigh(np.array([0.25, 2.0], "float32"), np.ones(2, "float32"))
    >>> w.numpy().round(3).tolist()
    [2.0, 0.25]

    Reference: Kendall et al., CVPR 2018, arXiv:1705.07115; revised: Liebel and Koerner, 2018, arXiv:1805.06334.
    """

    def __init__(
        self, form: str = "auto", learning_rate: float = 0.025, initial: float = 0.0, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.form = check.check_choice("form", form, FORMS)
        self.learning_rate = check.check_number("learning_rate", learning_rate, above=0)
        self.initial = check.check_number("initial", initial, minimum=-6, maximum=6)

    def make_state(self, count: int) -> None:
        self.log_variances = self.state("log_variances", (count,), self.initial)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        s = ops.convert_to_tensor(self.log_variances)
        if self.form == "revised":
            v = ops.exp(s)
            weights = 0.5 / v
            slope = -weights * losses + v / (1 + v)  # d/ds, through v = exp(s)
        else:
            gaussian = [self.form == "regression" or (self.form == "auto" and TASKS[k].is_gaussian) for k in self.kinds]
            factors = ops.convert_to_tensor([0.5 if is_gaussian else 1.0 for is_gaussian in gaussian])
            weights = factors * ops.exp(-s)
            slope = -weights * losses + 0.5
        self.log_variances.assign(ops.clip(s - self.learning_rate * slope * active, -6.0, 6.0))
        return weights

    def get_config(self) -> Config:
        config = {"form": self.form, "learning_rate": self.learning_rate, "initial": self.initial}
        return {**super().get_config(), **config}
