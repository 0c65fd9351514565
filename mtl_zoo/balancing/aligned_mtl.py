from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from keras import ops

from mtl_zoo import _backend
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import GramBalancing, check_by_loss
from mtl_zoo.balancing._registry import register_balancing
from mtl_zoo.balancing._solvers import scaled

# An eigenvalue of the cosines below this share of the largest, times the number of tasks, is float32's rounding of 0.
ROUNDING = 1e-6


@register_balancing("aligned_mtl")
class AlignedMTL(GramBalancing):
    """Aligned-MTL: the gradients are replaced by the nearest orthogonal gradients of equal length.

        A = V Lambda V';   B = sqrt(lambda_min) V Lambda^(-1/2) V';   d = sum_k (B w)_k g_k

    with `lambda_min` the smallest eigenvalue that is not 0, and w the preferences. The rows of B G are orthogonal, of
    length `sqrt(lambda_min)`, so no task can dominate or conflict. With w = 1 the result is a sum: gradients that are
    already orthogonal and equally long keep coefficients of 1. The step is as long as the weakest direction allows,
    which is short where one gradient is small or nearly parallel to others, even when they agree. Which eigenvalues
    are 0 is decided on the cosines, so a task counts however short its gradient is; a direction whose eigenvalue is
    below 1e-6 of the largest, times the number of tasks, is float32 rounding and is dropped. Equal or opposed gradients
    have one direction less, and opposed gradients give `d = 0`. It costs a backward pass for each task; the solution is
    two eigendecompositions.

    Args:
        preferences: The w of every loss, as a dict of numbers above 0 by name. None means 1 for all.
        include_tables: Whether the touched rows of embedding tables are weighed too, instead of only receiving `d`.
        update_every: The coefficients are computed anew every so many steps.
        name: The method's name in Keras.

    Raises:
        ValueError: If a preference is not a number above 0 or `update_every` is below 1; when the model is compiled, if
            a name is not a loss or a loss is missing.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import AlignedMTL
    >>> method = AlignedMTL()
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> gram = np.array([[1.0, -1.0], [-1.0, 2.0]], "float32")
    >>> c = method.coefficients(gram, np.ones(2, "float32"), np.ones(2, "float32"))
    >>> [round(float(x), 3) for x in c]
    [1.106, 0.829]

    Reference: Senushkin et al., CVPR 2023, arXiv:2305.19000.
    """

    def __init__(
        self,
        preferences: Mapping[str, float] | None = None,
        include_tables: bool = False,
        update_every: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(include_tables, update_every, name)
        self.preferences = check_by_loss("preferences", preferences, above=0)

    def make_state(self, count: int) -> None:
        self.values = self.by_loss("preferences", self.preferences, 1.0)

    def coefficients(self, gram: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        # In float64, where there is one: eigenvalues of gradients' products spread as the squares of their lengths.
        kind = "float64" if _backend.is_tensorflow() else "float32"
        cosines, lengths, _ = scaled(gram, active)
        active, lengths = ops.cast(active, kind), ops.cast(lengths, kind)
        cosines = ops.cast(cosines, kind) * active[:, None] * active[None, :]
        count = cosines.shape[0]
        # How many directions there are does not depend on how long the gradients are, so the cosines tell.
        values, vectors = ops.eigh(cosines)
        real = values > ROUNDING * count * ops.max(values)
        directions = ops.sum(ops.cast(real, "int32"))
        # Without what is rounding of 0, which would hide the eigenvalues of short gradients.
        cosines = ops.matmul(vectors * ops.where(real, values, 0.0), ops.transpose(vectors))
        values, vectors = ops.eigh(cosines * lengths[:, None] * lengths[None, :])
        real = np.arange(count) >= count - directions
        smallest = ops.min(ops.where(real, values, 3e38))
        roots = ops.where(real, ops.sqrt(smallest / ops.where(real, values, 1.0)), 0.0)
        along = ops.sum(vectors * (ops.cast(self.values, kind) * active)[:, None], axis=0)
        return ops.cast(ops.sum(vectors * (roots * along), axis=1), "float32")

    def get_config(self) -> Config:
        preferences = None if self.preferences is None else dict(self.preferences)
        return {**super().get_config(), "preferences": preferences}
