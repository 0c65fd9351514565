from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras


class NonFiniteLossWatchdog(keras.callbacks.Callback):
    """Stops training with an error as soon as a loss is NaN or infinite, naming the losses, the epoch and the step."""

    def __init__(self, loss_names: Sequence[str]) -> None:
        super().__init__()
        self.loss_names = tuple(loss_names)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = logs or {}
        if math.isfinite(float(logs.get("loss", 0.0))):
            return
        named = [name for name in self.loss_names if not math.isfinite(float(logs.get(f"{name}_loss", 0.0)))]
        what = f"The loss of {', '.join(map(repr, named))}" if named else "The total loss (a regulariser or penalty)"
        raise FloatingPointError(
            f"{what} is not finite at epoch {self._epoch + 1}, step {batch + 1}. Training has stopped. Usual causes: a "
            "learning rate that is too high, numeric inputs that were not normalised, inf in labels or weights."
        )
