from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import TINY, GradientBalancing
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("moco")
class MoCo(GradientBalancing):
    """MoCo: MGDA's direction from moving averages of the gradients, with weights that take one step at a time.

    With `g_k` the batch's gradients, at step t:

        y_k <- y_k - beta_t (y_k - g_k)
        lambda <- projection on the simplex of  lambda - gamma_t (Y Y' + rho I) lambda
        d = sum_k lambda_k y_k;   beta_t = beta / t^beta_decay, gamma_t = gamma / t^gamma_decay

    The averages remove the noise in the gradients, which biases MGDA's weights. The `lambda` sum to 1, so compared with
    a plain sum steps are T times smaller. The average of an inactive task does not change, and the others share the
    weight of 1 meanwhile. The state takes T times the memory of the shared weights.

    Args:
        beta: The share of the new gradient in the averages, above 0 and at most 1.
        gamma: The learning rate of `lambda`.
        rho: The strength of a penalty that pulls the weights towards equality.
        beta_decay, gamma_decay: How fast `beta` and `gamma` fall with the steps. With 0 they stay.
        name: The method's name in Keras.

    Raises:
        ValueError: If a number is outside these bounds or below 0.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import MoCo
    >>> method = MoCo(beta=1.0, gamma=0.05, gamma_decay=0.0)
    >>> method.sizes = (2,)
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gradients, ones = np.array([[1.0, 0.0], [-1.0, 1.0]], "float32"), np.ones(2, "float32")
    >>> for _ in range(200):
    ...     direction, weights = method.direction(gradients, ones, ones, (2,))
    >>> [round(float(x), 3) for x in weights]  # those of MGDA
    [0.6, 0.4]

    Reference: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning", ICLR 2023. Defaults are those of
    LibMTL, which puts a softmax in place of the projection.
    """

    keeps_gradients = True

    def __init__(
        self,
        beta: float = 0.5,
        gamma: float = 0.1,
        rho: float = 0.0,
        beta_decay: float = 0.5,
        gamma_decay: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.beta = check.check_number("beta", beta, above=0, maximum=1)
        self.gamma = check.check_number("gamma", gamma, above=0)
        self.rho = check.check_number("rho", rho, minimum=0)
        self.beta_decay = check.check_number("beta_decay", beta_decay, minimum=0)
        self.gamma_decay = check.check_number("gamma_decay", gamma_decay, minimum=0)

    def make_state(self, count: int) -> None:
        self.averages = self.state("averages", (count, sum(self.sizes)), 0.0)
        self.shares = self.state("shares", (count,), 1.0 / count)

    def direction(
        self, gradients: Tensor, losses: Tensor, active: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        time = ops.convert_to_tensor(self.step) + 1.0
        beta = self.beta / ops.power(time, self.beta_decay)
        gamma = self.gamma / ops.power(time, self.gamma_decay)
        averages = ops.convert_to_tensor(self.averages)
        averages = averages + beta * active[:, None] * (gradients - averages)
        self.averages.assign(averages)
        tracked = averages * active[:, None]
        # The active tasks divide a weight of 1 among them; in the end they get the weight back that they had together.
        shares = ops.convert_to_tensor(self.shares)
        mass = ops.sum(shares * active)
        equal = active / ops.maximum(ops.sum(active), 1.0)
        among = ops.where(mass > TINY, shares * active / ops.maximum(mass, TINY), equal)
        slope = ops.matmul(ops.matmul(tracked, ops.transpose(tracked)), among[:, None])[:, 0] + self.rho * among
        among = project_on_simplex(among - gamma * slope, active)
        self.shares.assign(ops.where(active > 0, among * mass, shares))
        return ops.matmul(among[None, :], tracked)[0], among

    def get_config(self) -> Config:
        names = ("beta", "gamma", "rho", "beta_decay", "gamma_decay")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def project_on_simplex(x: Tensor, active: Tensor) -> Tensor:
    """The nearest point whose active entries are not negative and sum to 1, the others being 0."""
    ordered = ops.flip(ops.sort(ops.where(active > 0, x, -1e30)))
    ranks = ops.cast(ops.arange(1, x.shape[0] + 1), "float32")
    kept = ops.cast(ordered > -1e29, "float32")
    excess = (ops.cumsum(ordered * kept) - 1.0) / ranks
    # The last rank at which an entry is larger than what every entry up to it has to give up.
    last = ops.sum(kept * ops.cast(ordered > excess, "float32"))
    given_up = ops.sum(ops.where(ranks == last, excess, 0.0))
    return ops.maximum(x - given_up, 0.0) * active
