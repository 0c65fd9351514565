from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, STRING, Column, refuse_values
from mtl_zoo.features._states import ColumnType, Unseen
from mtl_zoo.features.base import Feature, register_feature
from mtl_zoo.features.requests import Encoder, InputSpec


@register_feature("encoded")
@dataclasses.dataclass(frozen=True)
class Encoded(Feature):
    """A feature that a Keras layer of yours turns into a vector: text, an image, a precomputed vector.

    Args:
        name: Names the feature and the model's input, of shape (batch, *shape).
        encoder: A Keras layer from (batch, *shape) to (batch, any width). Each model trains and saves a copy of its
            own, which starts from the layer's weights if it is built; a layer class of your own needs
            `keras.saving.register_keras_serializable`.
        column: Its column in a table. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        shape: Shape of one row's value.
        dtype: Type of the values: `"float32"`, `"int32"` or `"string"` (TensorFlow only).
        key: Features with the same key share one copy of the encoder. Default: `name`.

    Example:

    >>> import keras
    >>> from mtl_zoo import Encoded
    >>> Encoded("title_vector", keras.layers.Dense(16), shape=(300,)).shape
    (300,)
    """

    encoder: Any = dataclasses.field(repr=False, compare=False)
    shape: tuple[int | None, ...] = dataclasses.field(default=(), kw_only=True)
    dtype: str = dataclasses.field(default="float32", kw_only=True)
    key: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.encoder):
            raise TypeError(f"`encoder` must be a Keras layer. Received: encoder={self.encoder!r}")
        if isinstance(self.shape, str) or not isinstance(self.shape, Iterable):
            raise ValueError(f"`shape` must be a tuple of sizes, such as (300,). Received: shape={self.shape!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            if size is not None:
                check.check_int("shape", size)
        check.check_choice("dtype", self.dtype, ("float32", "int32", "string"))
        if self.key is not None:
            check.check_name("key", self.key)

    @property
    def rule(self) -> str:
        return f"{self.dtype} {self.shape}"

    # In a model.

    def input_specs(self) -> dict[str, InputSpec]:
        return {self.name: InputSpec(self.shape, self.dtype)}

    def embed(self) -> Encoder:
        return Encoder(self.encoder, self.key or self.name)

    @property
    def share_key(self) -> tuple[str, str]:
        return ("encoder", self.key or self.name)

    def check_shares_with(self, first: Any) -> None:
        for argument in ("shape", "dtype"):
            self._refuse_difference(first, argument)

    # From a table.

    def fit(self, sharing: Sequence[tuple[Any, Column]]) -> None:
        self.raw_array(sharing[0][1])  # refuses what it cannot read

    def encode(self, state: None, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        return {self.name: self.raw_array(column)}, None

    def encode_in_graph(self, lookup: None, raw: Any) -> dict[str, Any]:
        import tensorflow as tf

        return {self.name: raw if raw.dtype == tf.string else tf.cast(raw, self.dtype)}

    def raw_form(self) -> InputSpec:
        return InputSpec(self.shape, self.dtype)

    def raw_array(self, column: Column) -> np.ndarray:
        """(n, *shape) of the feature's type; strings have '' where missing."""
        if self.shape:
            array = self._stacked(column)
        else:
            array = _texts(column) if self.dtype == "string" else column.numbers()
        return self._typed(column, array)

    def _stacked(self, column: Column) -> np.ndarray:
        rows = [np.asarray(cell) for cell in column.series]
        fits = np.array([_fits(row.shape, self.shape) for row in rows])
        shapes = np.array([str(row.shape) for row in rows], dtype=object)
        refuse_values(column.name, f"must hold arrays of shape {self.shape}", ~fits, shapes)
        if len({row.shape for row in rows}) > 1:
            odd = shapes != shapes[0]
            refuse_values(column.name, f"must hold arrays of one shape, like the first row's {shapes[0]}", odd, shapes)
        return np.stack(rows)

    def _typed(self, column: Column, array: np.ndarray) -> np.ndarray:
        rows = tuple(range(1, array.ndim))
        if self.dtype == "string":
            if column.kind != STRING and column.kind != EMPTY:
                raise ValueError(f"`{column.name}` must hold strings. Received: {column.shown}")
            objects = array.astype(object)
            return np.where(pd.isna(objects), "", objects).astype(object)
        if column.kind == STRING:
            raise ValueError(f"`{column.name}` must hold numbers for dtype={self.dtype!r}. Received: {column.shown}")
        try:
            numbers = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{column.name}` must hold arrays of numbers. Received: {error}") from error
        bad = np.asarray(~np.isfinite(numbers).all(axis=rows))
        refuse_values(column.name, "must hold finite numbers", bad, column.series.to_numpy(dtype=object))
        if self.dtype == "int32":
            limits = np.iinfo(np.int32)
            odd = (numbers != np.floor(numbers)) | (numbers < limits.min) | (numbers > limits.max)
            bad = np.asarray(odd.any(axis=rows))
            rule = "must hold whole numbers of 32 bits, since dtype='int32'"
            refuse_values(column.name, rule, bad, column.series.to_numpy(dtype=object))
        elif np.abs(numbers).max(initial=0.0) > np.finfo(np.float32).max:
            bad = np.asarray((np.abs(numbers) > np.finfo(np.float32).max).any(axis=rows))
            rule = "must hold numbers that fit in 32 bits"
            refuse_values(column.name, rule, bad, column.series.to_numpy(dtype=object))
        return array.astype(np.int32 if self.dtype == "int32" else np.float32)

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        import keras

        vectors = [[0.5, 1.0], [0.0, -2.0], [3.0, 1e6], [1.0, 1.0], [0.0, 0.0], [0.25, 4.0]]
        return [(cls("vector", keras.layers.Dense(3, name="vector_encoder"), shape=(2,)), vectors)]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        import keras

        config = {**super().get_config(), "shape": list(self.shape)}
        config["encoder"] = keras.saving.serialize_keras_object(self.encoder)
        if self.key is None:
            del config["key"]  # what 0.1.0 wrote
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        import keras

        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})


def _texts(column: Column) -> np.ndarray:
    if column.kind not in (STRING, EMPTY) or column.is_list:
        raise ValueError(f"`{column.name}` must hold strings. Received: {column.shown}")
    cells = column.cells()
    return np.append(cells.values, "")[cells.codes].astype(object)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))
