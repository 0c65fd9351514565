from __future__ import annotations

from mtl_zoo._types import Config
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing.mgda import MGDA


@register_balancing("mgda_ub")
class MGDAUB(MGDA):
    """MGDA-UB: MGDA on the gradients of the shared representation, which is smaller than the shared weights.

        lambda = argmin over the simplex of || sum_k lambda_k dL_k/dZ ||^2;   d = sum_k lambda_k g_k

    `Z` lies between the part of the model that several losses depend on and the parts of one loss. It is found in the
    graph and taken for the whole batch: in a shared-bottom model it is the bottom's output, in MMoE the experts'
    outputs and what the gates read. `||dL_k/dZ||` bounds the norm of the gradient of the shared weights, up to a factor
    that is the same for all tasks. It costs a backward pass through the private part for each task, and one through the
    whole model.

    Args:
        normalization: What the gradients are divided by first, as in `MGDA`: `"l2"`, `"loss"`, `"loss+"`, or None for
            nothing.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If `normalization` is unknown or `update_every` is below 1.

    Example:

    >>> from mtl_zoo.balancing import MGDAUB
    >>> MGDAUB(normalization="loss").normalization
    'loss'

    Reference: Sener and Koltun, NeurIPS 2018, arXiv:1810.04650.
    """

    taken_of = "representation"

    def __init__(self, normalization: str | None = None, update_every: int = 1, name: str | None = None) -> None:
        super().__init__(normalization, False, update_every, name)

    def get_config(self) -> Config:
        config = super().get_config()
        del config["include_tables"]
        return config
