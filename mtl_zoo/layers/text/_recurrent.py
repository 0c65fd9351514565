"""What GRU and LSTM have in common: they read a text from both ends."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor
from mtl_zoo.layers._lists import real_tokens
from mtl_zoo.layers.text._base import TextEncoder


class RecurrentEncoder(TextEncoder):
    """A recurrent layer of Keras in each direction."""

    recurrent: ClassVar[Any]

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check.check_int("units", units, maximum=check.MAX_UNITS)
        self.forward = self._direction("forward", go_backwards=False)
        self.backward = self._direction("backward", go_backwards=True)

    def _direction(self, name: str, go_backwards: bool) -> Any:
        return self.recurrent(self.units, go_backwards=go_backwards, name=name, dtype=self.dtype_policy)

    @property
    def width(self) -> int:
        return 2 * self.units

    def build(self, input_shape: Shape) -> None:
        self.forward.build(input_shape)
        self.backward.build(input_shape)

    def call(self, inputs: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        real = real_tokens(inputs, mask)
        ends = [layer(inputs, mask=real, training=training) for layer in (self.forward, self.backward)]
        return keras.ops.concatenate(ends, axis=-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}
