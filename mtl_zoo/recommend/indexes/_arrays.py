"""Arrays of an index: ids and vectors that are checked, and lists of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.recommend._ids import EMPTY, id_array, is_filled


def checked_ids(ids: Any) -> np.ndarray:
    array = id_array("ids", ids)
    if array.ndim != 1:
        raise ValueError(f"`ids` must have shape (items,). Received: shape {array.shape}")
    empty = ~is_filled(array)
    if empty.any():
        raise ValueError(f"`ids` must hold no -1 and no missing ones. Received: {int(empty.sum())} of them")
    known = pd.Index(array)
    if not known.is_unique:
        raise ValueError(
            f"`ids` must name an item once. Received twice: {check.sample_values(known[known.duplicated()])}"
        )
    return array


def checked_vectors(vectors: Any) -> np.ndarray:
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
        raise ValueError(
            f"`vectors` must be numbers of shape (rows, width). Received: shape {array.shape}, dtype {array.dtype}"
        )
    array = np.ascontiguousarray(array, "float32")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any(axis=1).sum())
        raise ValueError(f"`vectors` must be finite, as float32. Received: {bad} rows with NaN or infinite numbers")
    return array


def ids_and_vectors(ids: Any, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    names, rows = checked_ids(ids), checked_vectors(vectors)
    if len(names) != len(rows):
        raise ValueError(f"`vectors` must have one row an id, {len(names)}. Received: {len(rows)} rows")
    # The caller's array may change.
    return names, rows.copy() if np.shares_memory(rows, np.asarray(vectors)) else rows


def without(positions: np.ndarray, scores: np.ndarray, out: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray]:
    """The lists without the positions of `out`, those behind moved up, and -1 at their end."""
    row = np.arange(len(positions))[:, None] * items
    # An empty place would be the last item of the row before.
    unwanted = np.isin(row + positions, (row + out)[out != EMPTY]) & (positions != EMPTY)
    order = np.argsort(unwanted | (positions == EMPTY), axis=1, kind="stable")
    positions = np.take_along_axis(np.where(unwanted, EMPTY, positions), order, axis=1)
    return positions, np.take_along_axis(scores, order, axis=1)


def filled_up(lists: np.ndarray, k: int, value: Any) -> np.ndarray:
    return np.pad(lists, ((0, 0), (0, k - lists.shape[1])), constant_values=value)


def rows_at_once(items: int, most: int = 1 << 25) -> int:
    """How many rows of queries have their scores of all items in memory at once."""
    return max(1, most // max(items, 1))


def joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and scores of several runs of rows, one below the other."""
    positions, scores = zip(*parts, strict=True)
    return np.concatenate(positions), np.concatenate(scores)
