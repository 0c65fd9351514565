"""Cells that hold lists of lists: sessions of baskets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from mtl_zoo.features._columns import EMPTY, STRING, Cells, Column, Lists


def nested_lists(column: Column, separator: str) -> Lists:
    """What a column's lists of lists hold, a row's inner lists one after the other, as strings; lists as they are."""
    if not column.is_nested:
        lists = column.lists(separator)
        return dataclasses.replace(lists, cells=_named(lists.cells))
    array = column.array
    inner = Column(column.name, pd.Series(pc.list_flatten(array), dtype=pd.ArrowDtype(array.type.value_type)))
    lists = inner.lists(separator)
    rows = np.asarray(pc.list_parent_indices(array), dtype=np.int64)[lists.rows]
    return Lists(_named(lists.cells), rows, len(column.series))


def _named(cells: Cells) -> Cells:
    """The cells with their values as strings."""
    return dataclasses.replace(cells, kind=cells.kind if cells.kind == EMPTY else STRING, values=cells.as_text())
