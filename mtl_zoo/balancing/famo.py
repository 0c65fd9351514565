from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import TINY, LossBalancing, check_by_loss, masked_softmax
from mtl_zoo.balancing._registry import register_balancing

# Added to the distance of a loss from its least value.
MARGIN = 1e-8
BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


@register_balancing("famo")
class FAMO(LossBalancing):
    """FAMO: aims at all losses falling at the same rate; a loss that falls faster than others loses weight.

        D_k = L_k - least_k + 1e-8;   z = softmax(xi);   w_k = (z_k / D_k) / sum_j (z_j / D_j)
        after the step:  delta_k = log D_k(before) - log D_k(after);   xi follows -J delta by Adam, J = diag(z) - z z^T

    The weights sum to 1, so compared with the plain sum the learning rate is divided by T or more. With `reevaluates`,
    "after" means the same batch evaluated again, as in the paper; without it, the next batch, which costs nothing and
    adds the difference between two batches as noise. The second evaluation is a forward pass as in training, with the
    same dropout masks and the batch's own statistics. It leaves no trace: moving statistics and seeds are those of one
    step.

    Args:
        learning_rate: Learning rate of the `xi`.
        weight_decay: Weight decay of the `xi`, added to their gradient; it draws the weights together.
        least: The least value that each loss can reach, as a dict of numbers >= 0 by name. None means 0 for all.
        reevaluates: Whether each batch is evaluated again after its step (on TensorFlow, with one replica).
        name: The method's name in Keras.

    Raises:
        ValueError: If a number is out of its bounds; when the model is compiled, if a name is not a loss, a loss is
            missing, or `reevaluates` is set on another backend than TensorFlow or with several replicas.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import FAMO
    >>> method = FAMO()
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> method.weigh(np.array([1.0, 4.0], "float32"), np.ones(2, "float32")).numpy().round(4).tolist()
    [0.800000011920929, 0.20000000298023224]

    Reference: Liu et al., NeurIPS 2023, arXiv:2306.03792.
    """

    def __init__(
        self,
        learning_rate: float = 0.025,
        weight_decay: float = 1e-3,
        least: Mapping[str, float] | None = None,
        reevaluates: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.learning_rate = check.check_number("learning_rate", learning_rate, above=0)
        self.weight_decay = check.check_number("weight_decay", weight_decay, minimum=0)
        self.least = check_by_loss("least", least, minimum=0)
        self.reevaluates = bool(reevaluates)

    def make_state(self, count: int) -> None:
        self.least_values = self.by_loss("least", self.least, 0.0)
        self.xi = self.state("xi", (count,), 0.0)
        self.momentum = self.state("momentum", (count,), 0.0)
        self.velocity = self.state("velocity", (count,), 0.0)
        self.updates = self.state("updates", (), 0.0)
        self.log_distances = self.state("log_distances", (count,), 0.0)
        self.seen = self.state("seen", (count,), 0.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        logs = self._log_distance(losses)
        if not self.reevaluates:
            self._learn(logs, active)
        before = ops.convert_to_tensor(self.log_distances)
        self.log_distances.assign(ops.where(active > 0, logs, before))
        # The next batch may lack a loss, which is then compared with the last one that had it.
        self.seen.assign(active if self.reevaluates else ops.maximum(self.seen, active))
        shares = masked_softmax(ops.convert_to_tensor(self.xi), active) * ops.exp(-logs)
        return shares / ops.maximum(ops.sum(shares), TINY)

    def after_step(self, losses: Tensor, active: Tensor) -> None:
        self._learn(self._log_distance(losses), active)

    def _log_distance(self, losses: Tensor) -> Tensor:
        least = ops.convert_to_tensor(self.least_values, "float32")
        return ops.log(ops.maximum(losses - least, 0.0) + MARGIN)

    def _learn(self, logs: Tensor, active: Tensor) -> None:
        # As tensors: JAX's `where` does not take a variable in a compiled step.
        first, second = ops.convert_to_tensor(self.momentum), ops.convert_to_tensor(self.velocity)
        both = active * self.seen
        gradient = self.xi_gradient(self.log_distances - logs, both)
        # Without anything to compare there is nothing to learn, and Adam does not count the step.
        learns = ops.cast(ops.sum(both) > 0, "float32")
        updates = self.updates + learns
        gradient = gradient + self.weight_decay * self.xi
        momentum = BETAS[0] * first + (1 - BETAS[0]) * gradient
        velocity = BETAS[1] * second + (1 - BETAS[1]) * ops.square(gradient)
        mean = momentum / (1 - ops.power(BETAS[0], ops.maximum(updates, 1.0)))
        square = velocity / (1 - ops.power(BETAS[1], ops.maximum(updates, 1.0)))
        step = self.learning_rate * mean / (ops.sqrt(square) + ADAM_EPSILON)
        self.updates.assign(updates)
        self.momentum.assign(ops.where(learns > 0, momentum, first))
        self.velocity.assign(ops.where(learns > 0, velocity, second))
        self.xi.assign(self.xi - learns * step)

    def xi_gradient(self, delta: Tensor, both: Tensor) -> Tensor:
        """`J delta` over the losses that were observed before and after."""
        z = masked_softmax(ops.convert_to_tensor(self.xi), both)
        delta = ops.where(both > 0, delta, 0.0)
        return z * (delta - ops.sum(z * delta))

    def get_config(self) -> Config:
        config = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        least = None if self.least is None else dict(self.least)
        return {**super().get_config(), **config, "least": least, "reevaluates": self.reevaluates}
