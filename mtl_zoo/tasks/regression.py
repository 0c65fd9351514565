from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from mtl_zoo.tasks.base import TASKS, ExactMetric, LabelColumn, RowLoss, Task


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

    The model's output of shape (batch, 1) is the prediction itself. A NaN label means "not observed".

    Losses: `"mean_squared_error"` (default), `"mean_absolute_error"`, `"huber"` (delta 1). See `Task` for the
    arguments.

    Example:

    >>> from mtl_zoo import RegressionTask
    >>> RegressionTask("rating", loss="huber").link
    'identity'
    """

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

    def scores(self, logits: Any) -> Any:
        return logits

    def read_label(self, column: LabelColumn) -> np.ndarray:
        label = column.numbers()
        column.refuse(f"must hold finite labels for task {self.name!r}", np.isinf(label))
        return label

    @property
    def label_rule(self) -> str:
        return "finite"

    def is_label(self, values: np.ndarray) -> np.ndarray:
        return np.isfinite(values)

    def label_frequency(self, y: np.ndarray) -> float:
        return float(y.var())

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
