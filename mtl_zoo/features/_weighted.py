"""Cells that hold values with weights: pairs, maps, or strings such as `comedy:0.7|drama:0.3`."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, PAIRS, STRING, Cells, Column, Lists

# What a weight looks like in text: as Python's `float` takes it, without its other forms.
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
# Share of values that look like pairs from which a column is taken to hold pairs.
_MOSTLY = 0.9
_TOKEN = re.compile(rf"(?s)(?P<value>.*):(?P<weight>(?:{_NUMBER})?)")


@dataclasses.dataclass(frozen=True)
class WeightedLists(Lists):
    """Lists of strings, and the weight of each value of all lists."""

    weights: np.ndarray


def read_weighted(column: Column, separator: str) -> WeightedLists:
    """The values of a column's cells, as strings, with their weights: 1 where there is none.

    Raises:
        ValueError: A cell holds something else, or a weight that is no finite number of 32 bits; its row is named.
    """
    rows: Any
    if column.kind == STRING and not column.is_list:
        rows, tokens = _tokens(column, separator)
    elif column.kind in (PAIRS, EMPTY) or column.is_list:
        rows, tokens = _pairs(column)
    else:
        raise ValueError(
            f"`{column.name}` must hold values with weights: lists of pairs, maps, or strings like "
            f"'a:0.5{separator}b:2'. Received: {column.shown}"
        )
    values = pd.Series([value for value, _ in tokens], dtype=object)
    weights = np.array([weight for _, weight in tokens], np.float64)
    bad = ~(np.abs(weights) <= np.finfo(np.float32).max)
    if bad.any():
        few = [f"row {rows[i]}: {values[i]!r} of weight {weights[i]}" for i in np.flatnonzero(bad)[:5]]
        raise ValueError(
            f"`{column.name}` must hold finite weights of 32 bits. Received: {int(bad.sum())} others, {'; '.join(few)}"
        )
    cells = Column(column.name, values).cells()
    keep = cells.codes >= 0
    kept = dataclasses.replace(cells, codes=cells.codes[keep])
    return WeightedLists(kept, np.array(rows, np.int64)[keep], len(column.series), weights[keep].astype(np.float32))


def _tokens(column: Column, separator: str) -> tuple[np.ndarray, list[tuple[str, float]]]:
    lists = column.lists(separator)
    pairs = []
    for number, token in enumerate(lists.cells.values.tolist()):
        found = _TOKEN.fullmatch(token)
        if ":" in token and found is None:
            row = int(lists.rows[lists.cells.codes == number][0])
            raise ValueError(
                f"`{column.name}` must hold a number after the last ':' of a value. Received: {check.shown(token)} in "
                f"row {row}"
            )
        pairs.append((token, 1.0) if found is None else (found["value"], float(found["weight"] or 1)))
    return lists.rows, [pairs[code] for code in lists.cells.codes]


def _pairs(column: Column) -> tuple[list[int], list[tuple[str, float]]]:
    rows, pairs = [], []
    for row, cell in enumerate(column.series):
        for value, weight in _items(column.name, row, cell):
            rows.append(row)
            pairs.append((value, weight))
    return rows, pairs


def _items(name: str, row: int, cell: Any) -> Iterator[tuple[str, float]]:
    if isinstance(cell, dict):
        # Parquet fills up maps with the keys of other rows, which then have no weight.
        items: list[Any] = [(value, weight) for value, weight in cell.items() if weight is not None]
    elif isinstance(cell, list | tuple | np.ndarray):
        items = list(cell)
    elif cell is None or pd.isna(cell):
        return
    else:
        raise ValueError(f"`{name}` must hold pairs or maps in all rows. Received: {check.shown(cell)} in row {row}")
    for item in items:
        value, weight = item if isinstance(item, list | tuple | np.ndarray) and len(item) == 2 else (item, None)
        if weight is None:
            weight = 1.0
        if isinstance(weight, bool | str) or not np.isscalar(weight) or np.iscomplexobj(weight):
            raise ValueError(f"`{name}` must hold numbers as weights. Received: {check.shown(weight)} in row {row}")
        yield _as_text(name, row, value), float(weight)  # type: ignore[arg-type]


def _as_text(name: str, row: int, value: Any) -> str:
    """A value as the vocabulary holds it; '' where it is missing."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or value != int(value):
        raise ValueError(
            f"`{name}` must hold pairs of a string or a whole number and its weight. Received: {check.shown(value)} in "
            f"row {row}"
        )
    return str(int(value))


def warn_of_weights(cells: Cells) -> None:
    """Warns of values that look like pairs, where weights are not read."""
    weighed = pd.Series(cells.values.astype(str)).str.fullmatch(r".+:\d*\.?\d+")
    if weighed.mean() > _MOSTLY:
        warnings.warn(
            f"`{cells.column}` seems to hold values with weights, which are not read: each pair is taken for a value. "
            f"Received: {check.sample_values(cells.values[:3])}. Say weights=True, or keep the values alone.",
            UserWarning,
            stacklevel=6,
        )


def as_texts(lists: Lists, separator: str) -> np.ndarray:
    """Each row's values, and their weights if they have any, as one string, which an exported model takes.

    Raises:
        ValueError: A value holds the separator.
    """
    weights = [f":{weight!r}" for weight in lists.weights.tolist()] if isinstance(lists, WeightedLists) else None
    split = np.array([separator in value for value in lists.cells.values], bool)
    lists.cells.refuse(f"must hold values without {separator!r} in them", split)
    parts: list[list[str]] = [[] for _ in range(lists.num_rows)]
    for i, (row, code) in enumerate(zip(lists.rows, lists.cells.codes, strict=True)):
        parts[row].append(lists.cells.values[code] + ("" if weights is None else weights[i]))
    texts = np.empty(lists.num_rows, object)
    texts[:] = [separator.join(part) for part in parts]
    return texts


def split_in_graph(tokens: Any) -> tuple[Any, Any]:
    """Values and float32 weights of a tensor of tokens. What is no finite number counts as 1."""
    import tensorflow as tf

    has_weight = tf.strings.regex_full_match(tokens, r"(?s).*:[^:]*")
    values = tf.where(has_weight, tf.strings.regex_replace(tokens, r":[^:]*$", ""), tokens)
    text = tf.strings.regex_replace(tokens, r"(?s)^.*:", "")
    is_number = has_weight & tf.strings.regex_full_match(text, _NUMBER)
    weights = tf.cast(tf.strings.to_number(tf.where(is_number, text, "1"), tf.float64), tf.float32)
    return values, tf.where(tf.math.is_finite(weights), weights, tf.ones_like(weights))
