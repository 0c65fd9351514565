"""Losses that compare the rows of one group (a session, a user, a query): what a binary task learns an order by."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._binary_losses import BinaryLoss, crossentropy

# Ids of a feature below this one stand for a missing value and for an unknown one, which are nobody's group.
_FIRST_ID = 2


@dataclasses.dataclass(frozen=True)
class GroupLoss(BinaryLoss):
    """Base of the losses that compare rows of one group within a batch.

    A batch of B rows takes B^2 comparisons; rows of a group that come in another batch, or on another replica, are not
    compared. `group` names an array beside the labels (`fit(x, {"click": ..., "session_id": ...})`) or an input of the
    model, such as the ids of a `Categorical`, whose missing and unknown ids are in no group.
    """

    group: str | None = None

    needs_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.group is not None and (not isinstance(self.group, str) or not self.group):
            raise ValueError(
                f"`group` must name an input of the model or an array beside the labels. Received: group={self.group!r}"
            )

    def together(self, logits: Any, batch: Any) -> Any:
        """(batch, batch): whether two rows are of one group and both observed; a row is with itself."""
        from keras import ops

        rows = ops.shape(logits)[0]
        found = None if self.group is None else self._ids(batch)
        if found is None:
            same = ops.ones((rows, rows), "bool")
        else:
            ids, known = found
            same = ops.logical_and(ops.equal(ids[:, None], ids[None, :]), known)
        if batch is not None and batch.observed is not None:
            counts = batch.observed > 0
            same = ops.logical_and(same, ops.logical_and(counts[:, None], counts[None, :]))
        return ops.logical_or(same, ops.eye(rows, dtype="bool"))

    def _ids(self, batch: Any) -> tuple[Any, Any]:
        from keras import ops

        for place in ("labels", "inputs"):
            held: Any = getattr(batch, place, None)
            if hasattr(held, "keys") and self.group in held:
                ids = ops.convert_to_tensor(held[self.group])
                if len(ids.shape) == 2 and ids.shape[1] == 1:
                    ids = ids[:, 0]
                if len(ids.shape) != 1:
                    raise ValueError(
                        f"`group` must name one id a row. Received: group={self.group!r} of shape {tuple(ids.shape)}"
                    )
                known = ids >= _FIRST_ID if place == "inputs" else ids == ids
                return ids, known[:, None]
        raise ValueError(
            f"`group` must name an array beside the labels or an input of the model. Received: group={self.group!r}. "
            f"Expected: among {[*(getattr(batch, 'labels', None) or ()), *(getattr(batch, 'inputs', None) or ())]}"
        )


@dataclasses.dataclass(frozen=True)
class Pairwise(GroupLoss):
    """BPR: the logit of a positive row is to lie above those of the negative rows of its group.

    For a row i with label 1 and the negative rows N(i) of its group in the batch:

        loss_i = mean over j in N(i) of -log sigmoid(a_i - a_j)

    and 0 for other rows, and where N(i) is empty. The task's loss is the mean over all observed rows, so it is small
    where labels are rare; `loss_weight` makes up for it. Only the order is learned: calibrate scores that are to be
    used as probabilities.

    Args:
        group: Name of the groups' ids: an input of the model, or an array beside the labels. Default: None, all rows
            of a batch are one group.

    Raises:
        ValueError: `group` is no name.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import Pairwise
    >>> BinaryTask("click", loss=Pairwise("user_id")).loss_name
    'pairwise'

    Reference: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, arXiv:1205.2618.
    """

    name: ClassVar[str] = "pairwise"

    def __call__(self, y: Any, logits: Any, batch: Any = None) -> Any:
        from keras import ops

        a = logits[:, 0]
        pairs = ops.cast(self.together(logits, batch), "float32") * y[:, None] * (1.0 - y[None, :])
        total = ops.sum(pairs, axis=1)
        return ops.sum(pairs * ops.softplus(a[None, :] - a[:, None]), axis=1) / ops.maximum(total, 1.0)


@dataclasses.dataclass(frozen=True)
class Listwise(GroupLoss):
    """The softmax cross-entropy of a group: its positive rows share the probability.

    For a row i with label 1, in a group G with `n` positive rows in the batch:

        loss_i = -(1 / n) log(exp a_i / sum over j in G of exp a_j)

    and 0 for other rows; so is the loss of a group of one row. The task's loss is the mean over all observed rows. Only
    differences within a group are learned: calibrate scores that are to be used as probabilities.

    Args:
        group: Name of the groups' ids: an input of the model, or an array beside the labels. Default: None, all rows
            of a batch are one group.

    Raises:
        ValueError: `group` is no name.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import Listwise
    >>> BinaryTask("click", loss=Listwise("session_id")).loss_name
    'listwise'

    Reference: Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007.
    """

    name: ClassVar[str] = "listwise"

    def __call__(self, y: Any, logits: Any, batch: Any = None) -> Any:
        from keras import ops

        a, same = logits[:, 0], self.together(logits, batch)
        positives = ops.sum(ops.cast(same, "float32") * y[None, :], axis=1)
        return y * (_logsumexp(a[None, :], same) - a) / ops.maximum(positives, 1.0)


@dataclasses.dataclass(frozen=True)
class JRC(GroupLoss):
    """Joint optimisation of ranking and calibration: the cross-entropy, and a listwise loss of both labels.

    With `s_i = 2 y_i - 1` and the group G of row i in the batch:

        loss_i = alpha BCE(y_i, sigmoid(a_i)) - (1 - alpha) log(exp(s_i a_i / 2) / sum over j in G of exp(s_i a_j / 2))

    The paper's model has two logits a row, `f(x, 0)` and `f(x, 1)`, whose difference is the logit; here they are
    `-a / 2` and `a / 2`, so a task keeps its one output and there is no freedom beside it. A group of one row has the
    cross-entropy alone.

    Args:
        group: Name of the groups' ids: an input of the model, or an array beside the labels. Default: None, all rows
            of a batch are one group.
        alpha: The share of the cross-entropy, within 0..1.

    Raises:
        ValueError: `group` is no name; `alpha` is out of range.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.tasks import JRC
    >>> BinaryTask("click", loss=JRC("session_id", alpha=0.8)).loss_name
    'jrc'

    Reference: Sheng et al., "Joint Optimization of Ranking and Calibration with Contextualized Hybrid Model", KDD 2023,
    arXiv:2208.06164. For the logits `-a / 2` and `a / 2` it is the loss of EasyRec, a library of the authors' company.
    """

    alpha: float = 0.5

    name: ClassVar[str] = "jrc"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("alpha", self.alpha, minimum=0, maximum=1)

    def __call__(self, y: Any, logits: Any, batch: Any = None) -> Any:
        a, same = logits[:, 0], self.together(logits, batch)
        side = (2.0 * y - 1.0) / 2.0
        ranking = _logsumexp(side[:, None] * a[None, :], same) - side * a
        return self.alpha * crossentropy(y, logits) + (1.0 - self.alpha) * ranking


def _logsumexp(values: Any, among: Any) -> Any:
    """By row, over the columns that are `among`."""
    from keras import ops

    return ops.logsumexp(ops.where(among, values, -1e30), axis=1)
