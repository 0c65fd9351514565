"""Arrays for features that have an encoder of their own: cells of a given shape and type, passed through."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtl_zoo.features._columns import EMPTY, STRING, Column, refuse_values
from mtl_zoo.features.spec import Encoded


def encode(feature: Encoded, column: Column) -> np.ndarray:
    """(n, *shape) of the feature's type; strings have '' where missing."""
    if not feature.shape:
        array = _texts(column) if feature.dtype == "string" else column.numbers()
    else:
        array = _stacked(feature, column)
    return _typed(feature, column, array)


def _texts(column: Column) -> np.ndarray:
    if column.kind not in (STRING, EMPTY) or column.is_list:
        raise ValueError(f"`{column.name}` must hold strings. Received: {column.shown}")
    cells = column.cells()
    return np.append(cells.values, "")[cells.codes].astype(object)


def _stacked(feature: Encoded, column: Column) -> np.ndarray:
    rows = [np.asarray(cell) for cell in column.series]
    fits = np.array([_fits(row.shape, feature.shape) for row in rows])
    shapes = np.array([str(row.shape) for row in rows], dtype=object)
    refuse_values(column.name, f"must hold arrays of shape {feature.shape}", ~fits, shapes)
    if len({row.shape for row in rows}) > 1:
        odd = shapes != shapes[0]
        refuse_values(column.name, f"must hold arrays of one shape, like the first row's {shapes[0]}", odd, shapes)
    return np.stack(rows)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))


def _typed(feature: Encoded, column: Column, array: np.ndarray) -> np.ndarray:
    rows = tuple(range(1, array.ndim))
    if feature.dtype == "string":
        if column.kind != STRING and column.kind != EMPTY:
            raise ValueError(f"`{column.name}` must hold strings. Received: {column.shown}")
        objects = array.astype(object)
        return np.where(pd.isna(objects), "", objects).astype(object)
    if column.kind == STRING:
        raise ValueError(f"`{column.name}` must hold numbers for dtype={feature.dtype!r}. Received: {column.shown}")
    numbers = array.astype(np.float64)
    bad = np.asarray(~np.isfinite(numbers).all(axis=rows))
    refuse_values(column.name, "must hold finite numbers", bad, column.series.to_numpy(dtype=object))
    if feature.dtype == "int32":
        limits = np.iinfo(np.int32)
        odd = (numbers != np.floor(numbers)) | (numbers < limits.min) | (numbers > limits.max)
        bad = np.asarray(odd.any(axis=rows))
        rule = "must hold whole numbers of 32 bits, since dtype='int32'"
        refuse_values(column.name, rule, bad, column.series.to_numpy(dtype=object))
    return array.astype(np.int32 if feature.dtype == "int32" else np.float32)
