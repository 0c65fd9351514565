from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._self_supervised import SelfSupervisedTask, checked_names, listed
from mtl_zoo.tasks.base import TASKS


@TASKS.register("reconstruction")
@dataclasses.dataclass(frozen=True)
class ReconstructionTask(SelfSupervisedTask):
    """A task without a label: features are dropped from a row, and the model's body must predict them from the others.

    In training each feature of a row is read as missing with probability `rate`, and the body (what the towers of the
    labelled tasks read) gives a vector `z` of such a row. Each dropped feature that had a value has a loss. That of an
    id i of a table `E`, with negatives `N` drawn evenly among the V known values (all others if those are no more than
    `negatives`, so that it is the softmax over the table), is

        loss = (log(exp s_i + V / |N| sum_{j in N, j != i} exp s_j) - s_i) / log V,    s_j = <W z + b, E_j>

    which is 1 for a body that knows nothing; of a list it is the mean over its ids. That of a number x, as the model
    reads it, standardised by a transform, is

        loss = (w z + b - x)^2

    The task's loss is the mean over all dropped values of the batch. Features of an encoder of their own, such as
    texts and vectors, are dropped and not predicted. Every row counts, with labels or without. The pass is one of
    training, beside that of the complete rows, which alone moves statistics of normalisations: a step takes about twice
    as long. Predictions, exports and `evaluate` have none of it, and neither has validation.

    The logs show `<task>_loss`, `<task>_accuracy` (the share of ids that score higher than all negatives) and
    `<task>_mse` of the numbers. See `Task` for `loss_weight`.

    Args:
        rate: Probability with which a feature of a row is dropped.
        features: Names of those that may be dropped. Default: None, all that are numbers or ids.
        negatives: The most negatives of an id.

    Raises:
        ValueError: `rate` is not in (0, 1]; `negatives` is below 1; `label`, `sample_space`, `sample_weight` or
            `metrics` are given. When a model is made: no labelled task has a tower; `features` names one that there is
            not, or none that can be predicted.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, Numeric, ReconstructionTask, SharedBottom
    >>> features = [Categorical("city", size=9), Numeric("age")]
    >>> model = SharedBottom(features, [BinaryTask("click"), ReconstructionTask("masked", loss_weight=0.3)])
    >>> model.loss_names, sorted(model.output)
    (('click', 'masked'), ['click'])

    Reference: the masked prediction of Devlin et al., NAACL 2019, arXiv:1810.04805, on features of a row.
    """

    rate: float = dataclasses.field(default=0.3, kw_only=True)
    features: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    negatives: int = dataclasses.field(default=512, kw_only=True)

    kind: ClassVar[str] = "reconstruction"
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "mse")

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("rate", self.rate, above=0, maximum=1)
        check.check_int("negatives", self.negatives)
        object.__setattr__(self, "features", checked_names("features", self.features))

    def get_config(self) -> dict[str, Any]:
        return listed(super().get_config(), "features")
