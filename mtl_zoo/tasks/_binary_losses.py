"""Losses of binary tasks with options of their own: values that travel with a task, and functions of labels and logits.

Keras is imported where they are computed, so that tasks do without it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from mtl_zoo import _validation as check


@dataclasses.dataclass(frozen=True)
class BinaryLoss:
    """Base of the losses below: `(y (batch,), logits (batch, 1)) -> (batch,)`.

    Attributes:
        name: Its name in `BinaryTask.losses`, and in saved files.
        needs_batch: It compares rows, and is handed the `Batch` too.
        learns_rate: It needs the rate of label 1 in the training labels, which the task learns.
    """

    name: ClassVar[str]
    needs_batch: ClassVar[bool] = False
    learns_rate: ClassVar[bool] = False

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{key: value for key, value in config.items() if key != "name"})

    def shift(self, rate: float) -> float:
        """What is added to logits before the loss, from the rate of label 1 in the training labels."""
        del rate
        return 0.0


def crossentropy(y: Any, logits: Any) -> Any:
    """`-y log p - (1 - y) log(1 - p)` by row, with `p` the sigmoid of the logit."""
    from keras import ops

    return ops.binary_crossentropy(y, logits[:, 0], from_logits=True)


@dataclasses.dataclass(frozen=True)
class Focal(BinaryLoss):
    """The focal loss: rows that are predicted well count less.

    With `p_t` the probability given to the row's own label, and `alpha_t` = `alpha` for label 1 and `1 - alpha` for 0:

        loss = -alpha_t (1 - p_t)^gamma log p_t

    `gamma=0` without `alpha` is the cross-entropy. Scores are no probabilities: they are drawn towards 1/2, so
    calibrate them if they are to be used as such.

    Args:
        gamma: How fast well-predicted rows fade, >= 0.
        alpha: The share of label 1 in the loss, within 0..1. Default: None, both labels weigh 1.

    Raises:
        ValueError: A number is out of range.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import Focal
    >>> BinaryTask("conversion", loss=Focal(gamma=1.0, alpha=0.25)).loss_name
    'binary_focal_crossentropy'

    Reference: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.
    """

    gamma: float = 2.0
    alpha: float | None = None

    name: ClassVar[str] = "binary_focal_crossentropy"

    def __post_init__(self) -> None:
        check.check_number("gamma", self.gamma, minimum=0)
        if self.alpha is not None:
            check.check_number("alpha", self.alpha, above=0, below=1)

    def __call__(self, y: Any, logits: Any) -> Any:
        from keras import ops

        # Of the row's own label: log p_t = -softplus(-z) and log(1 - p_t) = -softplus(z). No probability is rounded.
        z = (2.0 * y - 1.0) * logits[:, 0]
        values = ops.softplus(-z) * ops.exp(-self.gamma * ops.softplus(z))
        return values if self.alpha is None else values * (self.alpha * y + (1.0 - self.alpha) * (1.0 - y))


@dataclasses.dataclass(frozen=True)
class LabelSmoothing(BinaryLoss):
    """The cross-entropy with labels that are drawn towards 1/2: `y' = (1 - share) y + share / 2`.

    The best logit is then finite for every row, whatever its label; where labels are rare, scores are higher than the
    rate: a row that is never positive has the score `share / 2`.

    Args:
        share: How much of a label is spread over both classes, within 0..1.

    Raises:
        ValueError: `share` is out of range.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import LabelSmoothing
    >>> BinaryTask("click", loss=LabelSmoothing(0.02)).loss_name
    'label_smoothing'

    Reference: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, arXiv:1512.00567.
    """

    share: float = 0.1

    name: ClassVar[str] = "label_smoothing"

    def __post_init__(self) -> None:
        check.check_number("share", self.share, minimum=0, below=1)

    def __call__(self, y: Any, logits: Any) -> Any:
        return crossentropy((1.0 - self.share) * y + self.share / 2, logits)


@dataclasses.dataclass(frozen=True)
class LogitAdjustment(BinaryLoss):
    """The cross-entropy of logits to which the log odds of the label's rate are added while training.

    With `pi` the rate of label 1 among the observed training labels, and `a` the logit:

        loss = BCE(y, sigmoid(a + tau log(pi / (1 - pi))))

    The score `sigmoid(a)` is that of a world in which both labels are equally frequent (with `tau=1`): rows above 1/2
    are those that are more likely positive than rows are on average. The prior need not be learned by the weights,
    which matters most at the start of training. Scores are far above the rate; calibrate them if they are to be used
    as probabilities.

    Args:
        tau: How much of the prior is added, >= 0; 0 is the cross-entropy.

    Raises:
        ValueError: `tau` is out of range.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import LogitAdjustment
    >>> BinaryTask("conversion", loss=LogitAdjustment()).loss_name
    'logit_adjustment'

    Reference: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv:2007.07314, equation 10.
    """

    tau: float = 1.0

    name: ClassVar[str] = "logit_adjustment"
    learns_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check.check_number("tau", self.tau, minimum=0)

    def shift(self, rate: float) -> float:
        import math

        return self.tau * math.log(rate / (1 - rate))

    def __call__(self, y: Any, logits: Any) -> Any:
        # The logits were shifted before they came here, by `Task.loss_logits`.
        return crossentropy(y, logits)
