from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from mtl_zoo import _backend
from mtl_zoo._types import Config, Tensor


@keras.saving.register_keras_serializable(package="mtl_zoo")
class MissingInputs(keras.layers.Layer):
    """What stands for the inputs of a model that do not matter: zeros, or empty strings, one row for each row given.

    Args:
        shapes: By input name, the shape of a row.
        dtypes: By input name, the type.

    Input: any tensor (batch, ...). Output: dict of tensors (batch, *shape).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.layers import MissingInputs
    >>> MissingInputs({"city": []}, {"city": "int32"})(np.ones(3))["city"].numpy().tolist()
    [0, 0, 0]
    """

    def __init__(self, shapes: Mapping[str, Any], dtypes: Mapping[str, str], **kwargs: Any):
        super().__init__(**kwargs)
        # An axis of any length has one step.
        self.shapes = {name: [size or 1 for size in shape] for name, shape in shapes.items()}
        self.dtypes = dict(dtypes)
        self.built = True

    def call(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: _backend.empty_rows(rows, shape, self.dtypes[name]) for name, shape in self.shapes.items()}

    def compute_output_spec(self, rows: Any) -> Any:
        return {
            name: keras.KerasTensor((rows.shape[0], *shape), self.dtypes[name]) for name, shape in self.shapes.items()
        }

    def get_config(self) -> Config:
        return {**super().get_config(), "shapes": dict(self.shapes), "dtypes": dict(self.dtypes)}
