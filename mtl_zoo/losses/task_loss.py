from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo.losses.batch import Batch
from mtl_zoo.tasks import Task


class TaskLoss:
    """One task's loss by row, `(y, logits) -> (batch,)`, made from what a user gives to `compile`.

    Args:
        name: The name of the loss, for errors.
        task: The task whose labels the loss reads; it knows losses by name.
        loss: A name (it means the form that takes logits), a `keras.losses.Loss` that takes logits, or a function
            `(y (batch, 1), logits (batch, units)) -> (batch,)`. A function with the attribute `needs_batch = True` is
            also handed the `Batch`, for losses that compare rows; `batch.observed` says which rows count.

    Raises:
        ValueError: An unknown name; a loss object made with `from_logits=False`.
        TypeError: Neither name, loss object nor function.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import BinaryTask
    >>> from mtl_zoo.losses import TaskLoss
    >>> loss = TaskLoss("click", BinaryTask("click"), "binary_crossentropy")
    >>> round(float(loss(np.array([1.0], "float32"), np.array([[-40.0]], "float32"))[0]), 3)
    40.0
    """

    def __init__(self, name: str, task: Task, loss: Any):
        self.name, self.task, self.given = name, task, loss
        self.needs_batch = bool(getattr(loss, "needs_batch", False))
        if isinstance(loss, str):
            check.check_choice(f"loss[{name!r}]", loss, tuple(task.losses))
            self._rows = task.loss_of(loss)
            self.needs_batch = bool(getattr(self._rows, "needs_batch", False))
        elif isinstance(loss, keras.losses.Loss):
            if loss.get_config().get("from_logits") is False:
                raise ValueError(
                    f"`loss[{name!r}]` must take logits, since the model's outputs are logits. "
                    f"Received: {type(loss).__name__}(from_logits=False). Make it with from_logits=True."
                )
            self._rows = lambda y, logits: ops.reshape(loss.call(y[:, None], logits), (-1,))
        elif callable(loss):
            self._rows = lambda y, logits, *batch: ops.reshape(loss(y[:, None], logits, *batch), (-1,))
        else:
            raise TypeError(f"`loss[{name!r}]` must be a name, a Keras loss or a function. Received: {loss!r}")

    def __call__(self, y: Any, logits: Any, batch: Batch | None = None) -> Any:
        logits = ops.cast(logits, "float32")
        return self._rows(y, logits, batch) if self.needs_batch else self._rows(y, logits)
