from __future__ import annotations

from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Tensor
from mtl_zoo.balancing._base import LossBalancing, masked_softmax
from mtl_zoo.balancing._registry import register_balancing


@register_balancing("dwa")
class DWA(LossBalancing):
    """DWA, dynamic weight average: a loss counts more the slower it falls.

        r_k = mean L_k in the last window / mean L_k in the window before;   w = T softmax(r / temperature)

    The weights sum to the number of active losses, and are 1 in the first two windows. The paper's window is an epoch,
    for which `steps` is the number of batches. Models of clicks are often trained for one epoch, in which such a window
    does nothing at all; hence the shorter default. A loss without an observed row in a window keeps its last mean.

    Args:
        temperature: The larger it is, the more alike the weights are.
        steps: The number of training steps in a window.
        name: The method's name in Keras.

    Raises:
        ValueError: If `temperature` is not above 0 or `steps` is below 1.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.balancing import DWA
    >>> method = DWA(steps=1)
    >>> method.prepare(("click", "conversion"), ("binary", "binary"))
    >>> for losses in ([1.0, 1.0], [0.5, 1.0], [0.4, 1.0]):
    ...     w = method.weigh(np.array(losses, "float32"), np.ones(2, "float32"))
    >>> w.numpy().round(4).tolist()
    [0.8755999803543091, 1.124400019645691]

    Reference: Liu et al., CVPR 2019, doi:10.1109/CVPR.2019.00197.
    """

    def __init__(self, temperature: float = 2.0, steps: int = 100, name: str | None = None) -> None:
        super().__init__(name)
        self.temperature = check.check_number("temperature", temperature, above=0)
        self.steps = check.check_int("steps", steps)

    def make_state(self, count: int) -> None:
        self.sums = self.state("sums", (count,), 0.0)
        self.counts = self.state("counts", (count,), 0.0)
        self.last_means = self.state("last_means", (count,), 0.0)
        self.earlier_means = self.state("earlier_means", (count,), 0.0)

    def coefficients(self, losses: Tensor, active: Tensor) -> Tensor:
        sums, counts, last, earlier = (
            ops.convert_to_tensor(v) for v in (self.sums, self.counts, self.last_means, self.earlier_means)
        )
        ended = ops.logical_and(self.step > 0, ops.equal(ops.mod(self.step, self.steps), 0))
        means = ops.where(counts > 0, sums / ops.maximum(counts, 1.0), last)
        earlier, last = ops.where(ended, last, earlier), ops.where(ended, means, last)
        self.earlier_means.assign(earlier)
        self.last_means.assign(last)
        self.sums.assign(ops.where(ended, 0.0, sums) + losses * active)
        self.counts.assign(ops.where(ended, 0.0, counts) + active)
        known = ops.logical_and(earlier > 0, last > 0)
        ratios = ops.where(known, last / ops.where(known, earlier, 1.0), 1.0)
        return ops.sum(active) * masked_softmax(ratios / self.temperature, active)

    def get_config(self) -> Config:
        return {**super().get_config(), "temperature": self.temperature, "steps": self.steps}
