from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks.base import TASKS, ExactMetric, LabelColumn, RowLoss, Task


def _crossentropy(y: Any, logits: Any) -> Any:
    from keras import ops

    return ops.binary_crossentropy(y, logits[:, 0], from_logits=True)


def _focal_crossentropy(y: Any, logits: Any) -> Any:
    import keras

    return keras.losses.binary_focal_crossentropy(y[:, None], logits, from_logits=True)


@TASKS.register("binary")
@dataclasses.dataclass(frozen=True)
class BinaryTask(Task):
    """A task with labels 0 and 1: click, conversion, like.

    The model's output is a logit `a` of shape (batch, 1) and the score is `1 / (1 + exp(-a))`. A NaN label means
    "not observed": the row does not count for this task.

    Losses: `"binary_crossentropy"` (default), `"binary_focal_crossentropy"`. See `Task` for the other arguments.

    Args:
        positive_weight: Factor of the losses of rows with label 1, for labels that are seldom 1. Scores are then higher
            than the label's rate; metrics do not weigh.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> click = BinaryTask("click")
    >>> conversion = BinaryTask("conversion", sample_space="click", loss_weight=0.5)
    >>> conversion.label_column, conversion.loss_name
    ('conversion', 'binary_crossentropy')
    """

    positive_weight: float = dataclasses.field(default=1.0, kw_only=True)

    kind: ClassVar[str] = "binary"
    link: ClassVar[str] = "sigmoid"
    losses: ClassVar[Mapping[str, RowLoss]] = {
        "binary_crossentropy": _crossentropy,
        "binary_focal_crossentropy": _focal_crossentropy,
    }
    default_metrics: ClassVar[tuple[str, ...]] = ("auc",)
    selection_metric: ClassVar[str] = "auc"
    is_event: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("positive_weight", self.positive_weight, above=0)

    def arrays_config(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_config().items() if k != "positive_weight"}

    def read_label(self, column: LabelColumn) -> np.ndarray:
        rule = f"must be 0 or 1 (or missing) for task {self.name!r}"
        if column.is_text:
            advice = "Map it to 0 and 1: table[column].map({...})"
            if column.texts() <= {"0", "1", "0.0", "1.0"}:
                name = column.name
                advice = f"These are strings; convert them: table[{name!r}] = table[{name!r}].astype(float)"
            column.refuse(rule, advice=advice)
        label = column.numbers()
        column.refuse(rule, ~(np.isnan(label) | self.is_label(label)))
        return label

    @property
    def label_rule(self) -> str:
        return "in 0..1, or NaN where not observed"

    def is_label(self, values: Any) -> Any:
        return (values == 0) | (values == 1)

    @property
    def num_classes(self) -> int:
        return 2

    def loss_factor(self, y: Any) -> Any:
        return None if self.positive_weight == 1 else 1.0 + (self.positive_weight - 1.0) * y

    def label_frequency(self, y: np.ndarray) -> float:
        return float(y.mean())

    def leaked_classes(self, y: np.ndarray) -> np.ndarray:
        return y == 1

    @classmethod
    def is_for(cls, values: np.ndarray) -> bool:
        return all(isinstance(value, (bool, int, float, np.generic)) and value in (0, 1) for value in values)

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        import keras

        from mtl_zoo.metrics import StreamingAUC

        return {
            "auc": StreamingAUC,
            "accuracy": keras.metrics.BinaryAccuracy,
            "precision": keras.metrics.Precision,
            "recall": keras.metrics.Recall,
        }

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        from mtl_zoo.metrics import exact

        return {
            "auc": ExactMetric(exact.auc, needs_both_classes=True),
            "logloss": ExactMetric(exact.logloss, direction=-1),
            "ne": ExactMetric(exact.normalized_entropy, needs_both_classes=True, direction=-1),
            # Best at 1: neither more nor less of it is better.
            "pcoc": ExactMetric(exact.pcoc, "no positive labels", direction=0),
            "ece": ExactMetric(exact.ece, direction=-1),
            "ece_mass": ExactMetric(_ece_of_equal_mass, direction=-1),
            "ks": ExactMetric(exact.ks, needs_both_classes=True),
            "accuracy": ExactMetric(exact.accuracy),
            "precision": ExactMetric(exact.precision, "no score >= 0.5"),
            "recall": ExactMetric(exact.recall, "no positive labels"),
            "f1": ExactMetric(exact.f1, "no positive labels and no score >= 0.5"),
        }


def _ece_of_equal_mass(y: Any, p: Any, weight: Any) -> float:
    from mtl_zoo.metrics import exact

    return exact.ece(y, p, weight, binning="mass")
