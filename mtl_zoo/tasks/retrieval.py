from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _pairs
from mtl_zoo import _validation as check
from mtl_zoo.tasks._retrieval_loss import SampledSoftmax
from mtl_zoo.tasks.base import TASKS, ExactMetric, RowLoss, Task


@TASKS.register("retrieval")
@dataclasses.dataclass(frozen=True)
class RetrievalTask(Task):
    """A task that learns which items to fetch for a user: two towers, over the features of each side.

    `u` is made of the features with `side="user"` and `v` of those with `side="item"`, by a tower each from the vectors
    of the model's own embedding, and both have length 1. For each row i with label 1, over the items of all rows j of
    the global batch whose item is another one, and its own,

        s_ij = <u_i, v_j> / temperature - log Q(item_j)
        loss_i = -log(exp s_ii / sum_j exp s_ij)

    Rows with label 0 have no loss, and their items are negatives of others; rows without a label (NaN) are neither.
    `Q` is the item's share of all rows that were trained on so far, which a layer of the model counts: an item that is
    often in a batch is often a negative, and without the correction it would be learned to be less liked than it is.
    The count forgets: once it has seen 8 million rows, older ones weigh half.

    The score of a row is `<u, v>`, in -1..1: what an index gives for the pair, an order of items for one user and no
    probability. `evaluate` gives the AUC of that score over the rows, where labels are of both kinds. How good the
    fetched lists are is asked of the whole catalogue: `evaluate_ranking` with an index of `model.item_vectors(items)`.
    The recall within a batch is not shown, since it depends on the batch's size.

    Any model of the catalogue takes the task beside others. It has no tower of the model's own: what it shares with the
    other tasks is the embedding (of a model with several, the one that was made first), and balancing methods weigh its
    loss with theirs. See `Task` for the other arguments.

    Args:
        tower_units: Layer widths of each side's tower. The last is linear, and is the width of the vectors.
        temperature: What inner products are divided by: smaller ones look at the hardest negatives alone.
        hard_negatives: How many negatives of a row count, those of the highest `s`. Default: None, all of them.
        item: Name of the feature that says which item a row is about. Default: None, the only one with `side="item"`
            that is an id.
        correction: Whether `log Q` is subtracted.

    Raises:
        ValueError: `tower_units` are not whole numbers >= 1; `temperature` is not > 0; `hard_negatives` is below 1.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, RetrievalTask, SharedBottom
    >>> features = [Categorical("user_id", size=9, side="user"), Categorical("item_id", size=7, side="item")]
    >>> model = SharedBottom(features, [BinaryTask("like"), RetrievalTask("watch", tower_units=(8, 4))])
    >>> model.item_vectors({"item_id": [2, 3, 4]}).shape
    (3, 4)

    Reference: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019,
    doi:10.1145/3298689.3346996.
    """

    tower_units: tuple[int, ...] = dataclasses.field(default=(64, 32), kw_only=True)
    temperature: float = dataclasses.field(default=0.1, kw_only=True)
    hard_negatives: int | None = dataclasses.field(default=None, kw_only=True)
    item: str | None = dataclasses.field(default=None, kw_only=True)
    correction: bool = dataclasses.field(default=True, kw_only=True)

    kind: ClassVar[str] = "retrieval"
    link: ClassVar[str] = "identity"
    losses: ClassVar[Mapping[str, RowLoss]] = {SampledSoftmax.name: SampledSoftmax()}
    default_metrics: ClassVar[tuple[str, ...]] = ("auc",)
    selection_metric: ClassVar[str] = "auc"
    compares_sides: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tower_units", check.check_units("tower_units", self.tower_units))
        check.check_number("temperature", self.temperature, above=0)
        if self.hard_negatives is not None:
            check.check_int("hard_negatives", self.hard_negatives)
        if self.item is not None:
            check.check_name("item", self.item)
        check.check_choice("correction", self.correction, (True, False))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tower_units": list(self.tower_units)}

    def arrays_config(self) -> dict[str, Any]:
        ours = ("tower_units", "temperature", "hard_negatives", "item", "correction")
        return {k: v for k, v in self.get_config().items() if k not in ours}

    @property
    def logit_units(self) -> int:
        return _pairs.packed_width(self.tower_units[-1])

    def loss_of(self, name: str) -> RowLoss:
        del name  # there is one
        return SampledSoftmax(self.temperature, self.hard_negatives, self.correction)

    def in_loss(self, y: Any) -> Any:
        return y == 1

    def scores(self, logits: Any) -> Any:
        from keras import ops

        return ops.sum(_pairs.users_of(logits) * _pairs.items_of(logits).vectors, axis=-1, keepdims=True)

    def soft_loss(self, taught: Any, logits: Any, temperature: float) -> Any:
        """The squared difference of the two scores; a score is no probability, and has no temperature."""
        from keras import ops

        return ops.square(self.scores(logits) - taught)[:, 0]

    @property
    def label_rule(self) -> str:
        return "0 or 1, or NaN where not observed"

    def is_label(self, values: Any) -> Any:
        return (values == 0) | (values == 1)

    @property
    def num_classes(self) -> int:
        return 2

    def label_frequency(self, y: np.ndarray) -> float:
        return float(y.mean())

    def leaked_classes(self, y: np.ndarray) -> np.ndarray:
        return y == 1

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        from mtl_zoo.metrics import AffinityAUC

        return {"auc": AffinityAUC}

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        from mtl_zoo.metrics import exact

        return {"auc": ExactMetric(exact.auc, needs_both_classes=True)}
