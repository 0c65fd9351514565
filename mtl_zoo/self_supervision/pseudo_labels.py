from __future__ import annotations

from typing import Any

from keras import ops

from mtl_zoo.self_supervision._base import Objective, Setting, checked_of, register_objective, rows
from mtl_zoo.self_supervision._dropping import FeatureDropping


@register_objective("pseudo_label")
class PseudoLabels(Objective):
    """What the model is sure of, as labels: see `PseudoLabelTask`.

    Example:

    >>> from mtl_zoo.self_supervision import OBJECTIVES
    >>> OBJECTIVES["pseudo_label"].__name__
    'PseudoLabels'
    """

    def __init__(self, task: Any, setting: Setting):
        super().__init__(task, setting)
        known = {output.name: output for output in setting.outputs if output.task.name == output.name}
        checked_of("of", task, [task.of], known)
        self.of = known[task.of]
        self.dropping = FeatureDropping(task, setting) if task.rate else None

    def call(self, passes: Any) -> Any:
        taught = ops.stop_gradient(_by_class(self.of, passes.logits))
        logits = passes.logits
        if self.dropping is not None:
            logits = passes.logits_of(self.dropping(passes.inputs)[0])
        learned = _by_class(self.of, logits)
        best = ops.argmax(taught, axis=-1)
        sure = ops.cast(ops.max(taught, axis=-1) >= ops.log(self.task.threshold), "float32")
        loss = -ops.sum(learned * ops.one_hot(best, taught.shape[-1], dtype="float32"), axis=-1)
        ones = ops.ones_like(loss)
        return rows(sure * loss, ones, (sure, ones))


def _by_class(output: Any, logits: Any) -> Any:
    """Logarithms of the probabilities of an output's classes, (batch, classes)."""
    given = ops.cast(logits[output.name], "float32")
    if given.shape[-1] > 1:
        return ops.log_softmax(given, axis=-1)
    return ops.concatenate([ops.log_sigmoid(-given), ops.log_sigmoid(given)], axis=-1)
