from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LSTMBank(keras.layers.Layer):
    """Several LSTMs of one shape that read one sequence, run together in one loop over its steps.

    Each is Keras' LSTM with weights of its own. A step that is not real is padding: states are carried over it, so that
    the output is the state after the last real step, wherever padding stands, and 0 for an empty sequence.

    Args:
        num_experts: How many LSTMs.
        units: Width of the states; of several widths each is a layer that reads the states of the one below.

    Input: (batch, length, width) and which steps are real, (batch, length). Output: (batch, num_experts, last width).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import LSTMBank
    >>> LSTMBank(3, 4)(np.zeros((2, 5, 6), "float32"), np.ones((2, 5), "bool")).shape[1:]
    TensorShape([3, 4])
    """

    def __init__(self, num_experts: int, units: int | Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_experts = check.check_count("num_experts", num_experts)
        self.units = check.check_units("units", units)
        self.supports_masking = True  # says only that a mask on the input, which an LSTM leaves there, is no mistake
        self.cells = _Cells(self.num_experts, self.units, name="cells", dtype=self.dtype_policy)
        # One loop: as fast a step on a CPU as a loop for each LSTM, and half the time to trace it or to run it eagerly.
        self.loop = keras.layers.RNN(self.cells, name="loop", dtype=self.dtype_policy)

    def build(self, steps_shape: Shape, real_shape: Shape) -> None:
        self.loop.build(steps_shape)

    def call(self, steps: Tensor, real: Tensor, training: bool | None = None) -> Tensor:
        states = self.loop(steps, mask=ops.cast(real, "bool"), training=training)
        return ops.reshape(states, (-1, self.num_experts, self.units[-1]))

    def compute_mask(self, *inputs: Any) -> None:
        return None  # there are no steps any more

    def compute_output_shape(self, steps_shape: Shape, real_shape: Shape) -> Shape:
        return (steps_shape[0], self.num_experts, self.units[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "num_experts": self.num_experts, "units": self.units}


class _Cells(keras.layers.Layer):
    """The cells of all experts as one cell: they read the same step, and their states stand side by side.

    States are those of the last layer first: on JAX, Keras takes the first state for the output before a masked step.
    """

    def __init__(self, num_experts: int, units: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = [
            [keras.layers.LSTMCell(width, name=f"expert_{e}_{i}", dtype=self.dtype_policy) for e in range(num_experts)]
            for i, width in enumerate(units)
        ]
        self.state_size = [num_experts * width for width in reversed(units) for _ in range(2)]
        self.output_size = num_experts * units[-1]

    def build(self, step_shape: Shape) -> None:
        for cells in self.layers:
            for cell in cells:
                cell.build(step_shape)
            step_shape = (step_shape[0], cells[0].units)

    def call(self, step: Tensor, states: Sequence[Tensor], training: bool | None = None) -> tuple[Tensor, list[Tensor]]:
        inputs = [step] * len(self.layers[0])
        after: list[Tensor] = []
        for i, cells in enumerate(self.layers):
            last = len(states) - 2 * (i + 1)
            split = [ops.split(state, len(cells), axis=-1) for state in states[last : last + 2]]
            new = [
                cell(x, [hidden, carry], training=training)[1]
                for cell, x, hidden, carry in zip(cells, inputs, *split, strict=True)
            ]
            inputs = [hidden for hidden, _ in new]
            after = [ops.concatenate(parts, axis=-1) for parts in zip(*new, strict=True)] + after
        return after[0], after
