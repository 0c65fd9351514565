from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from mtl_zoo._types import Tensor
from mtl_zoo.optimizers._rows import is_sparse


@keras.saving.register_keras_serializable(package="mtl_zoo")
class SparseLossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Dynamic loss scaling for mixed float16 that looks for infinities in the rows of the batch only.

    Keras' own optimizer turns the gradient of every table into a dense one for this. `compile` of a model wraps its
    optimizer in this one where it is needed.

    Args:
        inner_optimizer: The optimizer that takes the unscaled gradients.
        initial_scale: The scale of the loss at the start. Default: 32768.0.
        dynamic_growth_steps: The number of steps with finite gradients after which the scale doubles. Default: 2000.

    Example:

    >>> from mtl_zoo.optimizers import LazyAdam, SparseLossScaleOptimizer
    >>> SparseLossScaleOptimizer(LazyAdam(), initial_scale=1024.0).initial_scale
    1024.0
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
    ) -> None:
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, name=name)

    def check_finite(self, grads: Sequence[Tensor]) -> Tensor:
        return super().check_finite([g.values if is_sparse(g) else g for g in grads])
