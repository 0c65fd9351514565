from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _validation as check
from mtl_zoo._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class DatetimeEncoder(keras.layers.Layer):
    """Rows of small tables, one a part of a date, side by side with numbers: `y = [E_1[i_1]; ...; E_p[i_p]; x]`.

    Args:
        sizes: Rows of each table. An id outside of its table counts as 1, unknown.
        dim: Width of each table.

    Input: ids i (batch, parts), or a dict of i and x (batch, numbers), the one whose name ends in `.numbers`. Output:
    (batch, parts * dim + numbers).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import DatetimeEncoder
    >>> DatetimeEncoder(sizes=(9, 14), dim=2)(np.array([[2, 13], [0, 0]], "int32")).shape[1:]
    TensorShape([4])
    """

    def __init__(self, sizes: Sequence[int], dim: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = tuple(check.check_int("sizes", size, minimum=2) for size in sizes)
        self.dim = check.check_int("dim", dim, maximum=check.MAX_UNITS)

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight((sum(self.sizes), self.dim), "uniform", name="table")

    def call(self, inputs: Any) -> Tensor:
        ids, numbers = _with_numbers(inputs)
        ids = ops.cast(ids, "int32")
        sizes = np.array(self.sizes, "int32")
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype("int32")
        known = ops.logical_and(ids >= 0, ids < sizes)
        rows = ops.take(self.table, ops.where(known, ids, 1) + offsets, axis=0)
        rows = ops.cast(ops.reshape(rows, (-1, len(self.sizes) * self.dim)), self.compute_dtype)
        return rows if numbers is None else ops.concatenate([rows, ops.cast(numbers, rows.dtype)], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        ids, numbers = _with_numbers(input_shape)
        return (ids[0], len(self.sizes) * self.dim + (0 if numbers is None else numbers[-1]))

    def get_config(self) -> Config:
        return {**super().get_config(), "sizes": list(self.sizes), "dim": self.dim}


def _with_numbers(inputs: Any) -> tuple[Any, Any]:
    if not isinstance(inputs, dict):
        return inputs, None
    (named,) = (name for name in inputs if name.endswith(".numbers"))
    (ids,) = (x for name, x in inputs.items() if name != named)
    return ids, inputs[named]
