from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import SMALL_LOSS, LossBalancing
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("loss_ratio")
class LossRatio(LossBalancing):
    """Loss ratio: every loss is raised or lowered to the size of a reference loss in the same batch.

        w_ref = 1;   w_k = alpha min(L_ref / L_k, beta)

    This is how NISE weighs a conversion by the click. The sum of the weights is not constant: the weighted losses are
    all `alpha L_ref` where `beta` does not bind. In a batch without an observed row of the reference, its last loss is
    used; before the first one, `w_k = alpha`.

    Args:
        reference: Name of the reference loss. None means the first, which in a funnel is the click.
        alpha: The factor of the other losses.
        beta: The largest ratio.
        name: The method's name in Keras.

    Raises:
        ValueError: If `alpha` or `beta` is not above 0; when the model is compiled, if the reference is not a loss.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import LossRatio
    >>> method = LossRatio(beta=10)
    >>> method.prepare(("click", "conversion", "cart"), ("binary", "binary", "binary"))
    >>> method.weigh(np.array([0.2, 0.1, 0.001], "float32"), np.ones(3, "float32")).numpy().tolist()
    [1.0, 2.0, 10.0]

    Reference: Huang et al. (NISE), RecSys 2024, doi:10.1145/3640457.3688151, with alpha 1 and beta 50.
    """

    def __init__(
        self, reference: str | None = None, alpha: float = 1.0, beta: float = 50.0, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.reference = None if reference is None else check.check_name("reference", reference)
        self.alpha = check.check_number("alpha", alpha, above=0)
        self.beta = check.check_number("beta", beta, above=0)

    def make_state(self, count: int) -> None:
        if self.reference is not None:
            check.check_choice("reference", self.reference, self.loss_names)
        place = 0 if self.reference is None else self.loss_names.index(self.reference)
        self.is_reference = tuple(float(i == place) for i in range(count))
        self.last_reference = self.state("last_reference", (), 0.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        is_reference = ops.convert_to_tensor(self.is_reference, "float32")
        observed = ops.sum(active * is_reference)
        last = ops.convert_to_tensor(self.last_reference)  # JAX's `where` does not take a variable
        size = ops.where(observed > 0, ops.sum(losses * is_reference), last)
        self.last_reference.assign(size)
        ratios = ops.where(size > 0, size / ops.maximum(losses, SMALL_LOSS), 1.0)
        others = self.alpha * ops.minimum(ratios, self.beta)
        return ops.where(is_reference > 0, 1.0, others)

    def get_config(self) -> Config:
        config = {"reference": self.reference, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **config}
