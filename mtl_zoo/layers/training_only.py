from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class TrainingOnly(keras.layers.Layer):
    """Ids of features that only training knows. Outside of training all become 0, which is missing.

    In training a share of the rows loses the ids of all these features together, so that something is learned for the
    rows that have none.

    Args:
        rate: The share of the rows, in [0, 1).
        seed: Of the draws. None: drawn from Keras' global generator.

    Input: dict of (batch, ...) tensors. Output: the same.

    Raises:
        ValueError: `rate` is out of range.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import TrainingOnly
    >>> ids, layer = {"position": np.full(1000, 5, "int32")}, TrainingOnly(0.2, seed=0)
    >>> left = np.asarray(layer(ids, training=True)["position"])
    >>> sorted(set(left.tolist())), 150 < int((left == 0).sum()) < 250
    ([0, 5], True)
    >>> int(np.asarray(layer(ids)["position"]).sum())
    0
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})
        self.rate = check.check_number("rate", rate, minimum=0, below=1)
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed) if rate else None

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        if not training:
            return {name: ops.zeros_like(x) for name, x in inputs.items()}
        if self._generator is None:
            return inputs
        rows = ops.shape(next(iter(inputs.values())))[0]
        stays = ops.greater_equal(keras.random.uniform((rows,), seed=self._generator), self.rate)
        return {name: x * ops.cast(_along(stays, x), x.dtype) for name, x in inputs.items()}

    def compute_output_spec(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Any]:
        return {name: keras.KerasTensor(x.shape, dtype=x.dtype) for name, x in inputs.items()}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _along(rows: Tensor, x: Tensor) -> Tensor:
    return ops.reshape(rows, (-1, *(1 for _ in x.shape[1:])))
