from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, TINY, GramBalancing
from mtl_zoo.balancing._registry import register_balancing

# No weight falls below this, since descent could make one negative.
SMALLEST_WEIGHT = 1e-3


@register_balancing("grad_norm")
class GradNorm(GramBalancing):
    """GradNorm: loss weights that bring the tasks' gradient norms to one level, higher for tasks that learn slower.

    With `G_k = w_k ||g_k||` at the last shared layer, `L_k(0)` the first loss, and means over the tasks:

        r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0))
        w_k <- w_k - learning_rate * d/dw_k sum_j | G_j - (mean G) r_j^alpha |,  the target held constant
        w_k <- T w_k / sum_j w_j

    A step uses the `w_k` from before it, for shared and private weights alike, since they are loss weights. The layer
    is found in the graph: of the weights that the most losses depend on, the last kernel of the layer that comes last.
    Gradients of single tasks are computed only there.

    The slope in `w_k` is `+-||g_k||`, so where gradients are large the learning rate must be small. Weights are kept
    above 0.001. `L_k(0)` is the loss on one batch.

    Args:
        alpha: How strongly slow tasks are favoured; 0 makes norms equal. The paper has 1.5, and 0.12 for tasks that are
            alike.
        learning_rate: Learning rate of the weights.
        update_every: The weights are updated every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `alpha` is below 0, `learning_rate` is not above 0, or `update_every` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import GradNorm
    >>> method = GradNorm(learning_rate=0.1)
    >>> method.prepare(("click", "like"), ("binary", "binary"))
    >>> gram = np.diag([4.0, 1.0]).astype("float32")
    >>> method.coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32")).numpy().tolist()
    [1.0, 1.0]
    >>> [round(float(x), 3) for x in method.weights_now.numpy()]
    [0.842, 1.158]

    Reference: Chen et al., ICML 2018, arXiv:1711.02257. The floor of the weights is ours.
    """

    taken_of = "layer"
    weighs_private = True

    def __init__(
        self, alpha: float = 1.5, learning_rate: float = 0.025, update_every: int = 1, name: str | None = None
    ) -> None:
        super().__init__(False, update_every, name)
        self.alpha = check.check_number("alpha", alpha, minimum=0)
        self.learning_rate = check.check_number("learning_rate", learning_rate, above=0)

    def make_state(self, count: int) -> None:
        self.weights_now = self.state("weights_now", (count,), 1.0)
        self.first_losses = self.state("first_losses", (count,), 0.0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        weights = ops.copy(self.weights_now)  # a variable would give what is assigned to it below
        first = ops.convert_to_tensor(self.first_losses)
        first = ops.where(ops.logical_and(active > 0, first == 0), losses, first)
        self.first_losses.assign(first)
        count = ops.maximum(ops.sum(active), 1.0)
        raw = ops.sqrt(ops.maximum(ops.diagonal(gram), 0.0)) * active
        norms = weights * raw
        ratios = ops.where(active > 0, ops.maximum(losses, 0.0) / ops.maximum(first, SMALL_LOSS), 0.0)
        ratios = ratios / ops.maximum(ops.sum(ratios) / count, TINY)
        targets = ops.sum(norms) / count * ops.power(ops.maximum(ratios, TINY), self.alpha)
        moved = weights - self.learning_rate * ops.sign(norms - targets) * raw
        moved = ops.maximum(moved, SMALLEST_WEIGHT)
        self.weights_now.assign(moved * len(self.loss_names) / ops.sum(moved))
        return weights

    def get_config(self) -> Config:
        config = super().get_config()
        del config["include_tables"]
        return {**config, "alpha": self.alpha, "learning_rate": self.learning_rate}
