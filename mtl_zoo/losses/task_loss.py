from __future__ import annotations

import keras
from keras import ops

from mtl_zoo import _validation as check


def _binary_crossentropy(y, logits):
    return ops.binary_crossentropy(y, logits[:, 0], from_logits=True)


def _binary_focal_crossentropy(y, logits):
    return keras.losses.binary_focal_crossentropy(y[:, None], logits, from_logits=True)


def _sparse_categorical_crossentropy(y, logits):
    return ops.sparse_categorical_crossentropy(ops.cast(y, "int32"), logits, from_logits=True)


def _mean_squared_error(y, logits):
    return ops.square(logits[:, 0] - y)


def _mean_absolute_error(y, logits):
    return ops.abs(logits[:, 0] - y)


def _huber(y, logits):
    return keras.losses.huber(y[:, None], logits)


_BY_KIND = {
    "binary": {
        "binary_crossentropy": _binary_crossentropy,
        "binary_focal_crossentropy": _binary_focal_crossentropy,
    },
    "multiclass": {"sparse_categorical_crossentropy": _sparse_categorical_crossentropy},
    "regression": {
        "mean_squared_error": _mean_squared_error,
        "mean_absolute_error": _mean_absolute_error,
        "huber": _huber,
    },
}


class TaskLoss:
    """One task's loss by row, `(y, logits) -> (batch,)`, made from what a user gives to `compile`.

    Args:
        name: The name of the loss, for errors.
        kind: `"binary"`, `"multiclass"` or `"regression"`.
        loss: A name (it means the form that takes logits), a `keras.losses.Loss` that takes logits, or a function
            `(y (batch, 1), logits (batch, units)) -> (batch,)`.

    Raises:
        ValueError: An unknown name; a loss object made with `from_logits=False`.
        TypeError: Neither name, loss object nor function.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.losses import TaskLoss
    >>> loss = TaskLoss("click", "binary", "binary_crossentropy")
    >>> round(float(loss(np.array([1.0], "float32"), np.array([[-40.0]], "float32"))[0]), 3)
    40.0
    """

    def __init__(self, name, kind, loss):
        self.name, self.kind, self.given = name, kind, loss
        if isinstance(loss, str):
            check.check_choice(f"loss[{name!r}]", loss, tuple(_BY_KIND[kind]))
            self._rows = _BY_KIND[kind][loss]
        elif isinstance(loss, keras.losses.Loss):
            if loss.get_config().get("from_logits") is False:
                raise ValueError(
                    f"`loss[{name!r}]` must take logits, since the model's outputs are logits. "
                    f"Received: {type(loss).__name__}(from_logits=False). Make it with from_logits=True."
                )
            self._rows = lambda y, logits: ops.reshape(loss.call(y[:, None], logits), (-1,))
        elif callable(loss):
            self._rows = lambda y, logits: ops.reshape(loss(y[:, None], logits), (-1,))
        else:
            raise TypeError(f"`loss[{name!r}]` must be a name, a Keras loss or a function. Received: {loss!r}")

    def __call__(self, y, logits):
        return self._rows(y, ops.cast(logits, "float32"))
