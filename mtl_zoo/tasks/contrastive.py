from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._self_supervised import SelfSupervisedTask, checked_names, listed
from mtl_zoo.tasks.base import TASKS


@TASKS.register("contrastive")
@dataclasses.dataclass(frozen=True)
class ContrastiveTask(SelfSupervisedTask):
    """A task without a label: two views of a row, with other features dropped, must be alike, and unlike other rows.

    In training two copies of the batch lose each feature of each row with probability `rate`; the model's body and a
    network of `projection_units` give a vector `v` for each, and `z = v / sqrt(|v|^2 + 1e-4)`: `z_1 .. z_2B` over the
    global batch of B rows. With `p(i)` the other view of i's row:

        loss_i = -log(exp(<z_i, z_p(i)> / temperature) / sum_{k != i} exp(<z_i, z_k> / temperature))

    A row's loss is the mean over its two views (NT-Xent, an InfoNCE loss). Every row counts, with labels or without.
    Rows of one user in a batch are each other's negatives all the same. The two passes are of training, beside that of
    the complete rows, which alone moves statistics of normalisations: a step takes about three times as long.
    Predictions, exports and `evaluate` have none of it, and neither has validation.

    The logs show `<task>_loss` and `<task>_accuracy`, the share of views whose nearest is the other view of their row;
    both depend on the size of the batch. See `Task` for `loss_weight`.

    Args:
        rate: Probability with which a feature of a row is dropped.
        temperature: What inner products are divided by: smaller ones look at the nearest negatives alone.
        projection_units: Layer widths of the network; the last is linear, and is the width of the vectors.
        features: Names of the features that may be dropped. Default: None, all that are numbers or ids.

    Raises:
        ValueError: `rate` is not in 0..1; `temperature` is not > 0; `projection_units` are not whole numbers >= 1;
            `label`, `sample_space`, `sample_weight` or `metrics` are given. When a model is made: no labelled task has
            a tower; `features` names one that there is not.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, ContrastiveTask, Numeric, create_model
    >>> features = [Categorical("city", size=9), Numeric("age")]
    >>> views = ContrastiveTask("views", projection_units=(16, 8))
    >>> model = create_model("mmoe", features, [BinaryTask("click"), views])
    >>> model.loss_names
    ('click', 'views')

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
    arXiv:2002.05709; feature dropping as in Yao et al., "Self-supervised Learning for Large-scale Item
    Recommendations", CIKM 2021, arXiv:2007.12865.
    """

    rate: float = dataclasses.field(default=0.3, kw_only=True)
    temperature: float = dataclasses.field(default=0.2, kw_only=True)
    projection_units: tuple[int, ...] = dataclasses.field(default=(64, 32), kw_only=True)
    features: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str] = "contrastive"
    measures: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("rate", self.rate, minimum=0, maximum=1)
        check.check_number("temperature", self.temperature, above=0)
        units = check.check_units("projection_units", self.projection_units)
        object.__setattr__(self, "projection_units", units)
        object.__setattr__(self, "features", checked_names("features", self.features))

    def get_config(self) -> dict[str, Any]:
        return listed(super().get_config(), "features", "projection_units")
