"""The vocabulary of the features that share one embedding table: checked, given or learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import SHOWN, STRING, Cells, Column
from mtl_zoo.features._growth import counted, most_frequent_first
from mtl_zoo.features.requests import UNKNOWN_ID
from mtl_zoo.features.vocabularies import Listed, Range


def checked_range(size: int, features: Sequence[Any], cells: Sequence[Cells]) -> Range:
    """The whole numbers below `size`, which the columns must hold."""
    vocabulary = Range(size)
    for feature, read_cells in zip(features, cells, strict=True):
        if not feature.holds_lists and read_cells.kind == STRING:
            raise ValueError(
                f"`{read_cells.column}` must hold whole numbers, since feature {feature.name!r} has "
                f"size={size}. Received: {SHOWN[STRING]}, {check.sample_values(read_cells.values)}. Convert "
                "it with pandas.to_numeric(table[column]), or leave `size` out to learn its vocabulary."
            )
        rule = f"must hold the whole numbers 0 .. {size - 1}, since size={size}"
        read_cells.refuse(rule, vocabulary.ids(read_cells) == UNKNOWN_ID)
    return vocabulary


def given(features: Sequence[Any], cells: Sequence[Cells], is_text: bool) -> Listed:
    """The list that the features give, of the type that their columns have."""
    listed = Column(f"vocabulary of {features[0].name}", pd.Series(features[0].vocabulary, dtype=object)).cells()
    if listed.missing:
        raise ValueError(
            f"`vocabulary` must not hold missing values, which have id 0. Received: {listed.missing} of "
            f"{len(listed.codes)} for feature {features[0].name!r}"
        )
    for feature, read_cells in zip(features, cells, strict=True):
        text = read_cells.kind == STRING
        # Strings between separators may well be numbers; a whole cell of text against numbers is a mistake.
        if text != (listed.kind == STRING) and not (text and feature.holds_lists):
            raise ValueError(
                f"`vocabulary` must hold values of the column's type. Received: {SHOWN[listed.kind]} "
                f"({check.sample_values(listed.values)}) for feature {feature.name!r}, column {read_cells.column!r} "
                f"with {SHOWN[read_cells.kind]} ({check.sample_values(read_cells.values)})"
            )
    return Listed(listed.as_text() if is_text else listed.whole_numbers())


def learned(cells: Sequence[Cells], is_text: bool, min_count: int, max_ids: int | None) -> Listed:
    """Most frequent value first, equally frequent ones in their own order; the first `max_ids` of them."""
    dtype = object if is_text else np.int64
    values, counts = counted([(c.as_text() if is_text else c.whole_numbers(), c.counts) for c in cells], dtype)
    values, counts = values[counts >= min_count], counts[counts >= min_count]
    return Listed(values[most_frequent_first(values, counts)][:max_ids])
