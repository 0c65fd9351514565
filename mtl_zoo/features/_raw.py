"""Columns as an exported model takes them: one dense tensor a column, of the type that the training table had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features import _arrays, _ids
from mtl_zoo.features._columns import BOOLEAN, INTEGER, MISSING_INTEGER, STRING, Column
from mtl_zoo.features._fitted import ColumnType, Fitted, read_columns
from mtl_zoo.features.spec import Encoded

# What a missing cell, or the end of a list, is in an array of each type.
MISSING = {"string": "", "int64": MISSING_INTEGER, "float64": np.nan}


def encoded_only(fitted: Fitted, name: str) -> Encoded | None:
    """The feature whose shape and type a column keeps, if no feature of another kind reads it."""
    readers = [feature for feature in fitted.features if feature.source == name]
    first = readers[0]
    if not isinstance(first, Encoded) or not all(isinstance(f, Encoded) for f in readers):
        return None
    if any((f.shape, f.dtype) != (first.shape, first.dtype) for f in readers if isinstance(f, Encoded)):
        return None
    return first


def dtype_of(column: ColumnType) -> str:
    if column.kind == STRING:
        return "string"
    if column.kind == INTEGER:
        return "int64"
    if column.kind == BOOLEAN and not column.has_missing and not column.is_list:
        return "bool"
    return "float64"


def signature(fitted: Fitted) -> dict[str, Any]:
    """A `tf.TensorSpec` by column."""
    import tensorflow as tf

    specs = {}
    for name, column in fitted.columns.items():
        feature = encoded_only(fitted, name)
        if feature is not None:
            specs[name] = tf.TensorSpec((None, *feature.shape), feature.dtype, name=name)
        else:
            specs[name] = tf.TensorSpec((None, None) if column.is_list else (None,), dtype_of(column), name=name)
    return specs


def arrays(fitted: Fitted, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The table's columns as arrays of `signature`'s types."""
    columns = read_columns(fitted.features, frame)
    found = {}
    for name, column in columns.items():
        feature = encoded_only(fitted, name)
        fitted.columns[name].check(column, name)
        found[name] = _array(column, fitted.columns[name]) if feature is None else _arrays.encode(feature, column)
    return found


def _array(column: Column, fitted: ColumnType) -> np.ndarray:
    dtype = dtype_of(fitted)
    if fitted.is_list:
        lists = column.lists(separator="|")
        counts = np.bincount(lists.rows, minlength=lists.num_rows)
        positions = np.arange(len(lists.rows)) - (np.cumsum(counts) - counts)[lists.rows]
        shape = (lists.num_rows, max(int(counts.max()), 1))
        padded = np.full(shape, MISSING[dtype], dtype=object if dtype == "string" else dtype)
        if len(lists.rows):
            padded[lists.rows, positions] = _values(lists.cells, dtype)[lists.cells.codes]
        return padded
    if dtype == "float64":
        return column.numbers()
    cells = column.cells()
    if dtype == "bool":
        if cells.missing:
            raise ValueError(
                f"`{column.name}` must not be missing, since no row of the training table was. "
                f"Received: {cells.missing} of {len(cells.codes)} rows missing"
            )
        return column.numbers() != 0
    if not len(cells.values):
        return np.full(len(cells.codes), MISSING[dtype], dtype=object if dtype == "string" else dtype)
    return np.append(_values(cells, dtype), np.array([MISSING[dtype]], dtype=object if dtype == "string" else dtype))[
        cells.codes
    ]


def _values(cells: Any, dtype: str) -> np.ndarray:
    if dtype == "int64":
        return _ids.whole_numbers(cells)
    return cells.values
