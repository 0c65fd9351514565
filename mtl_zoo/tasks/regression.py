from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.tasks.base import TASKS, ExactMetric, LabelColumn, RowLoss, Task

STANDARDIZE = "standardize"
_LARGEST = float(np.finfo("float32").max)
# Of normal labels the largest hundredth makes 7 % of the variance, of exponential ones 22 %.
_SHARE_OF_A_TAIL, _FEWEST_OF_A_TAIL = 0.5, 1000


def _pair(argument: str, given: Sequence[float]) -> tuple[float, float]:
    if len(given) != 2:
        raise ValueError(f"`{argument}` must be a pair of numbers. Received: {argument}={given!r}")
    return check.check_number(argument, given[0]), check.check_number(argument, given[1], above=0)


def _squared_error(y: Any, logits: Any) -> Any:
    from keras import ops

    return ops.square(logits[:, 0] - y)


def _absolute_error(y: Any, logits: Any) -> Any:
    from keras import ops

    return ops.abs(logits[:, 0] - y)


def _huber(y: Any, logits: Any) -> Any:
    import keras

    return keras.losses.huber(y[:, None], logits)


@TASKS.register("regression")
@dataclasses.dataclass(frozen=True)
class RegressionTask(Task):
    """A task with a number as label: rating, watch time.

    With the label's mean `m` and standard deviation `s`, the model's output `a` of shape (batch, 1) is compared with
    `(y - m) / s`, and the score is `m + s a`: a label weighs the same whatever its unit, seconds or hours. So the loss,
    in the logs too, is in standardised units (1 is that of the best constant), while metrics, scores, exports and
    reports are in the label's own unit. A NaN label means "not observed".

    The moments are those of the observed labels of the table that a `FeatureTransform` was fitted on or, without one,
    of the first arrays that `fit` was given; they are saved with the model, and stay as they are.

    Losses: `"mean_squared_error"` (default), `"mean_absolute_error"`, `"huber"` (delta 1). See `Task` for the other
    arguments.

    Args:
        scale: `"standardize"`; a number to divide by; a pair of numbers to subtract and then divide by; None: the
            model's output is the prediction itself.
        moments: Mean and standard deviation of the training labels, when they are known. Nobody needs to give them.

    Warns:
        UserWarning: A hundredth of the training labels makes most of their variance.

    Example:

    >>> from mtl_zoo import RegressionTask
    >>> task = RegressionTask("price", scale=100)
    >>> task.scores(0.5), task.loss_labels(50)
    (50.0, 0.5)
    """

    scale: str | float | tuple[float, float] | None = dataclasses.field(default=STANDARDIZE, kw_only=True)
    moments: tuple[float, float] | None = dataclasses.field(default=None, kw_only=True, compare=False, repr=False)

    kind: ClassVar[str] = "regression"
    link: ClassVar[str] = "identity"
    losses: ClassVar[Mapping[str, RowLoss]] = {
        "mean_squared_error": _squared_error,
        "mean_absolute_error": _absolute_error,
        "huber": _huber,
    }
    default_metrics: ClassVar[tuple[str, ...]] = ("rmse",)
    selection_metric: ClassVar[str] = "nrmse"
    is_gaussian: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.scale, str):
            check.check_choice("scale", self.scale, (STANDARDIZE, None))
        elif isinstance(self.scale, tuple | list):
            object.__setattr__(self, "scale", _pair("scale", self.scale))
        elif self.scale is not None:
            check.check_number("scale", self.scale, above=0)
        if self.moments is not None:
            object.__setattr__(self, "moments", _pair("moments", self.moments))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        scale, moments = config.pop("scale"), config.pop("moments")
        config["scale"] = list(scale) if isinstance(scale, tuple) else scale
        return config if moments is None else {**config, "moments": list(moments)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RegressionTask:
        # Files of 0.1.0, whose models predict the label itself, say nothing of it.
        return cls(**{"scale": None, **config})

    def arrays_config(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_config().items() if k not in ("scale", "moments")}

    @property
    def is_fitted(self) -> bool:
        return self.scale != STANDARDIZE or self.moments is not None

    def fit_label(self, y: np.ndarray) -> RegressionTask:
        if self.scale != STANDARDIZE:
            return self
        mean, deviation = float(np.mean(y)), float(np.std(y))
        # Of labels that are all alike, rounding may leave a trace of a deviation.
        if not deviation > 1e-12 * abs(mean):
            deviation = 1.0
        self._warn_of_heavy_tail(np.square((y - mean) / deviation))
        return dataclasses.replace(self, moments=(mean, deviation))

    def _warn_of_heavy_tail(self, squares: np.ndarray) -> None:
        largest = -(-len(squares) // 100)
        share = float(np.partition(squares, -largest)[-largest:].sum() / max(squares.sum(), 1e-30))
        if len(squares) >= _FEWEST_OF_A_TAIL and share > _SHARE_OF_A_TAIL:
            warnings.warn(
                f"`{self.label_column}`, the label of task {self.name!r}, has a heavy tail: 1 % of its rows make "
                f"{share:.0%} of its variance, and will make about as much of its loss. Consider loss='huber' or "
                "'mean_absolute_error', or a label on a logarithmic scale.",
                UserWarning,
                stacklevel=2,
            )

    def fitted_like(self, other: Task) -> RegressionTask:
        moments = getattr(other, "moments", None)
        same = (other.label_column, other.sample_space) == (self.label_column, self.sample_space)
        return dataclasses.replace(self, moments=moments) if same and moments is not None else self

    @property
    def unit(self) -> tuple[float, float]:
        """What is subtracted from a label, and what it is then divided by."""
        if self.scale is None or self.scale == STANDARDIZE:
            return (0.0, 1.0) if self.scale is None or self.moments is None else self.moments
        return self.scale if isinstance(self.scale, tuple) else (0.0, float(self.scale))

    def scores(self, logits: Any) -> Any:
        shift, factor = self.unit
        return logits if self.unit == (0.0, 1.0) else logits * factor + shift

    def loss_labels(self, y: Any) -> Any:
        shift, factor = self.unit
        return y if self.unit == (0.0, 1.0) else (y - shift) / factor

    def soft_loss(self, taught: Any, logits: Any, temperature: float) -> Any:
        """The squared difference, in the unit of the loss; the temperature has no meaning for a number."""
        from keras import ops

        del temperature
        return ops.square(ops.reshape(self.loss_labels(taught), (-1,)) - ops.reshape(logits, (-1,)))

    def read_label(self, column: LabelColumn) -> np.ndarray:
        label = column.numbers()
        column.refuse(f"must hold finite labels for task {self.name!r}", np.isinf(label))
        beyond = ~(np.isnan(label) | self.is_label(label))
        column.refuse(f"must hold labels within +-{_LARGEST:.1e}, what float32 holds, for task {self.name!r}", beyond)
        return label

    @property
    def label_rule(self) -> str:
        return f"finite and within +-{_LARGEST:.1e}, what float32 holds"

    def is_label(self, values: Any) -> Any:
        return (values >= -_LARGEST) & (values <= _LARGEST)

    def label_frequency(self, y: np.ndarray) -> float:
        """The variance, in the unit of the loss."""
        return float(np.var(self.loss_labels(y)))

    @classmethod
    def is_for(cls, values: np.ndarray) -> bool:
        return all(isinstance(value, (int, float, np.number)) for value in values) and len(values) > 1

    @classmethod
    def streaming_metrics(cls) -> dict[str, Callable[..., Any]]:
        import keras

        return {"rmse": keras.metrics.RootMeanSquaredError, "mae": keras.metrics.MeanAbsoluteError}

    @classmethod
    def exact_metrics(cls) -> dict[str, ExactMetric]:
        from mtl_zoo.metrics import exact

        return {
            "rmse": ExactMetric(exact.rmse, direction=-1),
            "mae": ExactMetric(exact.mae, direction=-1),
            "nrmse": ExactMetric(exact.nrmse, "all labels are equal", direction=-1, offset=1.0),
        }
