from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, LossBalancing, check_by_loss, masked_softmax
from mtl_zoo.balancing._registry import register_balancing

FORMS = ("log", "loss")


@register_balancing("stch")
class STCH(LossBalancing):
    """STCH, smooth Tchebycheff scalarisation: a smooth form of minimising the worst loss.

        S = mu log sum_k exp(lambda_k f_k / mu)
        "log":   f_k = log(L_k / nadir_k), objective T S;   w_k = T lambda_k softmax(lambda f / mu)_k / L_k
        "loss":  f_k = L_k - ideal_k,      objective S;     w_k = lambda_k softmax(lambda f / mu)_k

    With equal preferences a small `mu` trains the worst loss alone, and a large `mu` trains all losses alike. The nadir
    is the mean of each loss over the first `warm_up` steps that observe it; until then it is the mean so far. With
    preferences of 1 the weighted losses `w_k L_k` sum to T in the form "log", and the weights sum to 1 in the form
    "loss".

    The authors' code for many tasks takes the nadir from the fifth epoch and trains the sum of log losses until then;
    here it is counted in steps, since models are often trained for one epoch.

    Args:
        mu: How smooth the maximum is; the larger, the smoother.
        form: `"log"`, as in the authors' code for many tasks, which does not depend on the scales of the losses; or
            `"loss"`, the paper's formula.
        preferences: The `lambda_k`, as a dict of numbers above 0 by loss name. None means 1 for all.
        ideal: The least that each loss can reach, as a dict of numbers by name, for the form "loss". None means 0 for
            all.
        warm_up: The number of steps over which the nadir is averaged, for the form "log".
        name: The method's name in Keras.

    Raises:
        ValueError: If `form` is unknown or a number is out of its bounds; when the model is compiled, if a name is not
            a loss or a loss is missing.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import STCH
    >>> method = STCH(mu=0.1, form="loss", preferences={"click": 0.5, "conversion": 0.5})
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> method.weigh(np.array([1.0, 4.0], "float32"), np.ones(2, "float32")).numpy().round(3).tolist()
    [0.0, 0.5]

    Reference: Lin et al., ICML 2024, arXiv:2402.19078.
    """

    def __init__(
        self,
        mu: float = 1.0,
        form: str = "log",
        preferences: Mapping[str, float] | None = None,
        ideal: Mapping[str, float] | None = None,
        warm_up: int = 100,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.mu = check.check_number("mu", mu, above=0)
        self.form = check.check_choice("form", form, FORMS)
        self.preferences = check_by_loss("preferences", preferences, above=0)
        self.ideal = check_by_loss("ideal", ideal)
        self.warm_up = check.check_int("warm_up", warm_up)

    def make_state(self, count: int) -> None:
        self.lambdas = self.by_loss("preferences", self.preferences, 1.0)
        self.ideals = self.by_loss("ideal", self.ideal, 0.0)
        self.sums = self.state("sums", (count,), 0.0)
        self.counts = self.state("counts", (count,), 0.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        lambdas = ops.convert_to_tensor(self.lambdas, "float32")
        if self.form == "loss":
            values = losses - ops.convert_to_tensor(self.ideals, "float32")
            return lambdas * masked_softmax(lambdas * values / self.mu, active)
        losses = ops.maximum(losses, SMALL_LOSS)
        self._learn_nadir(losses, active)
        counts = ops.convert_to_tensor(self.counts)
        # A loss that the warm-up never saw starts at its first value.
        nadir = ops.where(counts > 0, self.sums / ops.maximum(counts, 1.0), losses)
        shares = masked_softmax(lambdas * ops.log(losses / nadir) / self.mu, active)
        return ops.sum(active) * lambdas * shares / losses

    def _learn_nadir(self, losses: Tensor, active: Tensor) -> None:
        # For a loss that is first observed late, the warm-up is counted from there.
        counting = active * ops.cast(ops.convert_to_tensor(self.counts) < self.warm_up, "float32")
        self.sums.assign_add(losses * counting)
        self.counts.assign_add(counting)

    def get_config(self) -> Config:
        dicts = {"preferences": self.preferences, "ideal": self.ideal}
        dicts = {key: None if value is None else dict(value) for key, value in dicts.items()}
        return {**super().get_config(), "mu": self.mu, "form": self.form, **dicts, "warm_up": self.warm_up}
