from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class LSTMBank(keras.layers.Layer):
    """Several LSTMs of the same shape that read one sequence, run together in one loop over its steps.

    Each is Keras' LSTM with its own weights. A step that is not real is padding. States are carried over it, so the
    output is the state after the last real step, wherever the padding is, and 0 for an empty sequence.

    Args:
        num_experts: The number of LSTMs.
        units: The width of the states. With several widths there is a layer for each, which reads the states of the one
            below.

    Input: the steps, (batch, length, width), and which of them are real, (batch, length). Output: (batch, num_experts,
    last width).

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
        self.supports_masking = True  # a mask that an LSTM leaves on the input is not a mistake
        self.cells = _Cells(self.num_experts, self.units, name="cells", dtype=self.dtype_policy)
        # One loop is as fast on a CPU as a loop for each LSTM, and takes half the time to trace or to run eagerly.
        self.loop = keras.layers.RNN(self.cells, name="loop", dtype=self.dtype_policy)

    def build(self, steps_shape: Shape, real_shape: Shape) -> None:
        self.loop.build(steps_shape)

    def call(self, steps: Tensor, real: Tensor, training: bool | None = None) -> Tensor:
        states = self.loop(steps, mask=ops.cast(real, "bool"), training=training)
        return ops.reshape(states, (-1, self.num_experts, self.units[-1]))

    def compute_mask(self, *inputs: Any) -> None:
        return None  # the output has no steps

    def compute_output_shape(self, steps_shape: Shape, real_shape: Shape) -> Shape:
        return (steps_shape[0], self.num_experts, self.units[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "num_experts": self.num_experts, "units": self.units}


class _Cells(keras.layers.Layer):
    """The cells of all experts as one cell: they read the same step, and their states are side by side.

    The states of the last layer come first: on JAX, Keras takes the first state for the output before a masked step.
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
