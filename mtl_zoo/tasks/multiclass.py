from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks.base import TASKS, ExactMetric, LabelColumn, RowLoss, Task, is_whole

_LARGEST_CLASS = 2**53


def _crossentropy(y: Any, logits: Any) -> Any:
    from keras import ops

    return ops.sparse_categorical_crossentropy(ops.cast(y, "int32"), logits, from_logits=True)


# Of more different strings a column is text, or ids, and no classes.
_MOST_CLASSES = 100


@TASKS.register("multiclass")
@dataclasses.dataclass(frozen=True)
class MulticlassTask(Task):
    """A task with one of several classes as label.

    The model's output is one logit a class, shape (batch, number of classes); the scores are their softmax. In arrays a
    label is the class's position in `classes`, or NaN where not observed; in tables it is the class itself.

    Args:
        classes: Their number (labels are then 0, 1, ...), or the list of labels as they stand in the table.

    Losses: `"sparse_categorical_crossentropy"`. See `Task` for the other arguments.

    Example:

    >>> from mtl_zoo import MulticlassTask
    >>> MulticlassTask("effect", classes=("none", "mild", "severe")).units
    3
    """

    classes: int | tuple[Any, ...] = dataclasses.field(kw_only=True)

    kind: ClassVar[str] = "multiclass"
    link: ClassVar[str] = "softmax"
    losses: ClassVar[Mapping[str, RowLoss]] = {"sparse_categorical_crossentropy": _crossentropy}
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    selection_metric: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.classes, str) or not isinstance(self.classes, (int, Iterable)):
            raise ValueError(f"`classes` must be a number or a list of labels. Received: classes={self.classes!r}")
        if isinstance(self.classes, int):
            check.check_int("classes", self.classes, minimum=2)
        else:
            object.__setattr__(self, "classes", tuple(self.classes))
            if len(self.classes) < 2 or check.duplicates(self.classes):
                raise ValueError(f"`classes` must be at least two different labels. Received: classes={self.classes!r}")
            large = [c for c in self.classes if isinstance(c, numbers.Integral) and abs(int(c)) > _LARGEST_CLASS]
            if large:
                raise ValueError(
                    "`classes` must be numbers up to 2**53, beyond which neighbours cannot be told apart, or strings. "
                    f"Received: {check.sample_values(large)} for task {self.name!r}"
                )

    @property
    def units(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def class_labels(self) -> tuple[Any, ...]:
        return tuple(range(self.classes)) if isinstance(self.classes, int) else self.classes

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["classes"] = self.classes if isinstance(self.classes, int) else list(self.classes)
        return config

    def margins(self, logits: Any) -> Any:
        """The log-odds of each class against all others: `a_c - logsumexp of the others`."""
        from keras import ops

        own = ops.eye(self.units, dtype="bool")
        others = ops.where(own, float("-inf"), ops.expand_dims(logits, -2))  # (batch, class, others)
        return logits - ops.logsumexp(others, axis=-1)

    def soft_loss(self, taught: Any, logits: Any, temperature: float) -> Any:
        """`KL(p_T || q_T) T^2` over the classes, with `p_T = softmax(log p / T)`, `q_T = softmax(a / T)`."""
        from keras import ops

        theirs = ops.log_softmax(ops.log(ops.maximum(taught, 1e-7)) / temperature, axis=-1)
        ours = ops.log_softmax(logits / temperature, axis=-1)
        return ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1) * temperature**2

    @property
    def reads_text(self) -> bool:
        return any(isinstance(label, str) for label in self.class_labels)

    def read_label(self, column: LabelColumn) -> np.ndarray:
        return column.positions(self, self.class_labels)

    @property
    def label_rule(self) -> str:
        return f"in 0..{self.units - 1}, or NaN where not observed"

    def is_label(self, values: Any) -> Any:
        return (values >= 0) & (values < self.units) & is_whole(values)

    @property
    def num_classes(self) -> int:
        return self.units

    def label_frequency(self, y: np.ndarray) -> float:
        """The chance that two rows differ: `1 - sum_c p_c^2` for classes with shares `p_c`."""
        _, counts = np.unique(y, return_counts=True)
        return float(1 - np.sum((counts / len(y)) ** 2))

    @classmethod
    def is_for(cls, values: np.ndarray) -> bool:
        return len(values) <= _MOST_CLASSES and all(isinstance(value, str) for value in values)

    @classmethod
    def keywords_of(cls, values: np.ndarray) -> dict[str, Any]:
        return {"classes": tuple(sorted(value.item() if hasattr(value, "item") else value for value in values))}

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        import keras

        return {"accuracy": keras.metrics.SparseCategoricalAccuracy}

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        from mtl_zoo.metrics import exact

        return {
            "accuracy": ExactMetric(exact.accuracy),
            "logloss": ExactMetric(exact.multiclass_logloss, direction=-1),
            "macro_auc": ExactMetric(exact.macro_auc, "one class only"),
        }
