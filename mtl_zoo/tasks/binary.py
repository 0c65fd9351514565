from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks._bias import Bias, as_bias
from mtl_zoo.tasks._binary_losses import BinaryLoss, Focal, LabelSmoothing, LogitAdjustment, crossentropy
from mtl_zoo.tasks._ranking_losses import JRC, Listwise, Pairwise
from mtl_zoo.tasks.base import TASKS, ExactMetric, LabelColumn, RowLoss, Task

_LOSSES: tuple[Any, ...] = (Focal(), LabelSmoothing(), LogitAdjustment(), Pairwise(), Listwise(), JRC())


@TASKS.register("binary")
@dataclasses.dataclass(frozen=True)
class BinaryTask(Task):
    """A task with labels 0 and 1: click, conversion, like.

    The model's output is a logit `a` of shape (batch, 1) and the score is `1 / (1 + exp(-a))`. A NaN label means
    "not observed": the row does not count for this task.

    Losses by name, or as a value with options (`mtl_zoo.tasks`): `"binary_crossentropy"` (default),
    `"binary_focal_crossentropy"` (`Focal`), `"label_smoothing"` (`LabelSmoothing`), `"logit_adjustment"`
    (`LogitAdjustment`), and of the rows of a group `"pairwise"` (`Pairwise`), `"listwise"` (`Listwise`), `"jrc"`
    (`JRC`). See `Task` for the other arguments.

    Args:
        positive_weight: Factor of the losses of rows with label 1, for labels that are seldom 1. Scores are then higher
            than the label's rate; metrics do not weigh.
        soft: Labels may be probabilities, as a teacher gives them (`mtl_zoo.training.soft_labels`): the cross-entropy
            is then that between two distributions, and no other loss is allowed. Metrics over whole columns need labels
            0 and 1: evaluate on rows that have them.
        bias: How the model's features with `bias=True`, such as the position in a list, enter this task's logit in
            training: `"add"` or `"multiply"`, or a `mtl_zoo.tasks.Bias` with options. Scores do not know them.
            Default: None, not at all.
        rate: Rate of label 1 among the observed training labels, for a loss that needs it. It is learned from a
            transform's training table, or from the first arrays that `fit` is given; nobody needs to give it.

    Example:

    >>> from mtl_zoo import BinaryTask
    >>> click = BinaryTask("click")
    >>> conversion = BinaryTask("conversion", sample_space="click", loss_weight=0.5)
    >>> conversion.label_column, conversion.loss_name
    ('conversion', 'binary_crossentropy')
    """

    loss: str | BinaryLoss = dataclasses.field(default="auto", kw_only=True)  # type: ignore[assignment]
    positive_weight: float = dataclasses.field(default=1.0, kw_only=True)
    soft: bool = dataclasses.field(default=False, kw_only=True)
    bias: str | Bias | None = dataclasses.field(default=None, kw_only=True)  # type: ignore[misc]
    rate: float | None = dataclasses.field(default=None, kw_only=True, compare=False, repr=False)

    kind: ClassVar[str] = "binary"
    link: ClassVar[str] = "sigmoid"
    losses: ClassVar[Mapping[str, RowLoss]] = {
        "binary_crossentropy": crossentropy,
        **{loss.name: loss for loss in _LOSSES},
    }
    default_metrics: ClassVar[tuple[str, ...]] = ("auc",)
    selection_metric: ClassVar[str] = "auc"
    is_event: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_number("positive_weight", self.positive_weight, above=0)
        object.__setattr__(self, "bias", as_bias(self.bias))
        if not isinstance(self.soft, bool):
            raise ValueError(f"`soft` must be True or False. Received: soft={self.soft!r}")
        if self.soft and self.loss_name != "binary_crossentropy":
            raise ValueError(
                "`loss` must be 'binary_crossentropy' for soft labels, which the others have no meaning for. "
                f"Received: loss={self.loss!r} for task {self.name!r}"
            )
        if self.rate is not None:
            check.check_number("rate", self.rate, above=0, below=1)

    def check_loss(self) -> None:
        if not isinstance(self.loss, BinaryLoss):
            super().check_loss()

    @property
    def loss_name(self) -> str:
        return self.loss.name if isinstance(self.loss, BinaryLoss) else super().loss_name

    def loss_of(self, name: str) -> RowLoss:
        found = self.loss if isinstance(self.loss, BinaryLoss) and self.loss.name == name else self.losses[name]
        if name != self.loss_name and getattr(found, "learns_rate", False):
            raise ValueError(
                f"`loss` must be given to the task, which learns what it needs: BinaryTask({self.name!r}, "
                f"loss={name!r}). Received: {name!r} for a task with loss={self.loss_name!r}"
            )
        return found  # type: ignore[return-value]

    def loss_logits(self, logits: Any, output: str) -> Any:
        loss = self.loss_of(self.loss_name)
        if not getattr(loss, "learns_rate", False):
            return logits
        if output != self.name:
            raise ValueError(
                f"`loss` must not be {self.loss_name!r} for task {self.name!r}, whose loss is also computed on "
                f"{output!r}: the rate of its labels is another's. Received: loss={self.loss!r}"
            )
        if self.rate is None:
            raise ValueError(
                f"`rate` of task {self.name!r} must be known for its loss {self.loss_name!r}. Make the model with a "
                "fitted FeatureTransform, train it on arrays or a table, or give the rate of label 1 to the task. "
                "Received: rate=None"
            )
        return logits + loss.shift(self.rate)  # type: ignore[attr-defined]

    def soft_loss(self, taught: Any, logits: Any, temperature: float) -> Any:
        """`KL(p_T || q_T) T^2` of the two outcomes, with `p_T = sigmoid(logit(p) / T)`, `q_T = sigmoid(a / T)`."""
        from keras import ops

        # Scores are float32: of 0 and 1 no logit is left.
        p = ops.clip(ops.reshape(taught, (-1,)), 1e-7, 1 - 1e-7)
        theirs = (ops.log(p) - ops.log1p(-p)) / temperature
        ours = ops.reshape(logits, (-1,)) / temperature
        gap = ops.sigmoid(theirs) * (theirs - ours) + ops.softplus(ours) - ops.softplus(theirs)
        return gap * temperature**2

    @property
    def is_fitted(self) -> bool:
        return self.rate is not None or not getattr(self.loss_of(self.loss_name), "learns_rate", False)

    def fit_label(self, y: np.ndarray) -> BinaryTask:
        if not getattr(self.loss_of(self.loss_name), "learns_rate", False):
            return self
        # Of labels that are all alike, as if half a row were another.
        least = 0.5 / len(y)
        return dataclasses.replace(self, rate=float(np.clip(np.mean(y), least, 1 - least)))

    def fitted_like(self, other: Task) -> BinaryTask:
        rate = getattr(other, "rate", None)
        same = (other.label_column, other.sample_space) == (self.label_column, self.sample_space)
        return dataclasses.replace(self, rate=rate) if same and rate is not None else self

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        rate = config.pop("rate")
        if not self.soft:
            del config["soft"]  # what 0.1.0 wrote
        if isinstance(self.bias, Bias):
            config["bias"] = self.bias.get_config()
        else:
            del config["bias"]
        if isinstance(self.loss, BinaryLoss):
            config["loss"] = self.loss.get_config()
        return config if rate is None else {**config, "rate": rate}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BinaryTask:
        loss = config.get("loss")
        if isinstance(loss, Mapping):
            made = {known.name: type(known) for known in _LOSSES}
            check.check_choice("loss", loss["name"], tuple(made))
            config = {**config, "loss": made[loss["name"]].from_config(dict(loss))}
        return cls(**config)

    def arrays_config(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_config().items() if k not in ("positive_weight", "rate", "bias")}

    def read_label(self, column: LabelColumn) -> np.ndarray:
        what = "within 0..1" if self.soft else "0 or 1"
        rule = f"must be {what} (or missing) for task {self.name!r}"
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
        return (values >= 0) & (values <= 1) if self.soft else (values == 0) | (values == 1)

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
