from __future__ import annotations

import dataclasses
from typing import ClassVar

from mtl_zoo import _validation as check
from mtl_zoo.tasks._self_supervised import SelfSupervisedTask
from mtl_zoo.tasks.base import TASKS


@TASKS.register("next_item")
@dataclasses.dataclass(frozen=True)
class NextItemTask(SelfSupervisedTask):
    """A task without a label: each item of a sequence is predicted from those before it.

    With ids `i_1 .. i_n` of a row's sequence, oldest first and without padding, `h_t` what causal self-attention makes
    of the first t (`HistorySelfAttention`), and `E` the sequence's embedding table, each t < n has the loss

        log(exp s_+ + V / |N| sum_{j in N, j != i_{t+1}} exp s_j) - s_+,    s_j = <h_t, E_j>, s_+ that of i_{t+1}

    with negatives `N` drawn evenly among the V known values (-log Q, by which sampled softmax corrects logits, is
    `log V` for them all); if those are no more than `negatives`, N is all of them, and the loss the softmax over the
    table. The task's loss is the mean over all positions of the batch whose next item is a known value, of rows with
    labels or without.

    What it shares with the other tasks is the table, and the encoder too where the feature has `encoder="sasrec"`; else
    it has one of its own. The body is not asked: a step takes little longer. Predictions, exports and `evaluate` have
    none of it, and neither has validation.

    The logs show `<task>_loss` and `<task>_mrr`, the mean of 1 / (1 + negatives that score higher). See `Task` for
    `loss_weight`.

    Args:
        sequence: Name of the `Sequence` feature, oldest first, with two places or more.
        negatives: The most negatives of an item.
        num_blocks: Blocks of the encoder, where the task has its own.
        dropout: Of that encoder.

    Raises:
        ValueError: `negatives` or `num_blocks` is below 1; `dropout` is not in 0..1; `label`, `sample_space`,
            `sample_weight` or `metrics` are given. When a model is made: `sequence` names no sequence of ids.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, NextItemTask, Sequence, SharedBottom
    >>> history = Sequence("history", size=50, key="item_id", length=8)
    >>> features = [Categorical("item_id", size=50), history]
    >>> model = SharedBottom(features, [BinaryTask("click"), NextItemTask("next", sequence="history")])
    >>> model.loss_names
    ('click', 'next')

    Reference: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv:1808.09781.
    """

    sequence: str = dataclasses.field(kw_only=True)
    negatives: int = dataclasses.field(default=512, kw_only=True)
    num_blocks: int = dataclasses.field(default=2, kw_only=True)
    dropout: float = dataclasses.field(default=0.2, kw_only=True)

    kind: ClassVar[str] = "next_item"
    measures: ClassVar[tuple[str, ...]] = ("mrr",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_name("sequence", self.sequence)
        check.check_int("negatives", self.negatives)
        check.check_count("num_blocks", self.num_blocks)
        check.check_number("dropout", self.dropout, minimum=0, below=1)
