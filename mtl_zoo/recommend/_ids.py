"""Lists of item ids as codes: what all metrics of rankings read, and the checks of what a user hands over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from mtl_zoo import _validation as check

EMPTY = -1


def _is_number(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu"


def id_array(argument: str, values: Any) -> np.ndarray:
    """Ids as an array of whole numbers, or of objects (strings, mostly)."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and not array.size:
        return array.astype("int64")
    if array.dtype.kind in "fcbmM":
        raise ValueError(f"`{argument}` must hold ids: whole numbers or strings. Received: dtype={array.dtype}")
    # Whole numbers are that in an array of objects, too.
    if _is_number(array) or pd.api.types.infer_dtype(array.reshape(-1), skipna=False) == "integer":
        if array.size and array.max() > np.iinfo("int64").max:
            raise ValueError(
                f"`{argument}` must hold whole numbers below 2^63. Received: {array.max()}. Make them strings"
            )
        return array.astype("int64")
    # NumPy would make the string "None" of a None among strings.
    return array if array.dtype == object else np.asarray(values, dtype=object)


def checked_lists(recommended: Any, argument: str = "recommended") -> np.ndarray:
    """Ids of shape (users, places); empty places hold -1, or None among strings, and stand at a list's end."""
    array = id_array(argument, recommended)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"`{argument}` must hold one list of ids a user, of shape (users, k). Received: shape {array.shape}"
        )
    filled = is_filled(array)
    gaps = (filled[:, 1:] & ~filled[:, :-1]).any(axis=1)
    if gaps.any():
        raise ValueError(
            f"`{argument}` must have its empty places at the end of a list. Received: {int(gaps.sum())} lists with an "
            f"id behind an empty place, the first in row {int(np.flatnonzero(gaps)[0])}"
        )
    return array


def is_filled(lists: np.ndarray) -> np.ndarray:
    """Where a place holds an id."""
    return lists != EMPTY if _is_number(lists) else ~np.asarray(pd.isna(lists))


def refuse_other_kind(argument: str, ids: Any, known: Any) -> None:
    """Strings among ids that are whole numbers, or the other way round: none of them would ever be found."""
    firsts = [next((one for one in each if isinstance(one, str | int | np.integer)), None) for each in (ids, known)]
    if firsts[0] is not None and firsts[1] is not None and isinstance(firsts[0], str) != isinstance(firsts[1], str):
        kind = "strings" if isinstance(firsts[1], str) else "whole numbers"
        raise ValueError(f"`{argument}` must hold ids that are {kind}, as the others are. Received: {firsts[0]!r}")


class Pairs(NamedTuple):
    """Items of users, one pair a row: the user's row, the item's id, the gain."""

    users: np.ndarray
    items: np.ndarray
    gains: np.ndarray


def pairs_of(argument: str, items: Any, users: int, gains: Any = None) -> Pairs:
    """Pairs from an array of ids for each user, or from a sparse matrix (users, items) whose values are the gains."""
    if sparse.issparse(items):
        matrix = sparse.coo_matrix(items)
        matrix.sum_duplicates()
        if matrix.shape[0] != users:
            raise ValueError(f"`{argument}` must have one row a user, {users}. Received: {matrix.shape[0]} rows")
        kept = matrix.data != 0
        found = Pairs(matrix.row[kept].astype("int64"), matrix.col[kept].astype("int64"), matrix.data[kept])
        return Pairs(found.users, found.items, checked_gains(argument, found.gains))
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise ValueError(f"`{argument}` must be a list of arrays of ids, or a sparse matrix. Received: {type(items)}")
    rows = [id_array(argument, row).reshape(-1) for row in items]
    if len(rows) != users:
        raise ValueError(f"`{argument}` must have one array of ids a user, {users}. Received: {len(rows)}")
    sizes = [len(row) for row in rows]
    weights = [np.ones(size) for size in sizes] if gains is None else [np.asarray(row, "float64") for row in gains]
    if [len(row) for row in weights] != sizes:
        raise ValueError("`gains` must have one number for each relevant item of each user. Received: other lengths")
    filled = [row for row in rows if len(row)]
    joined = np.concatenate(filled) if filled else np.zeros(0, "int64")
    gain = np.concatenate(weights) if weights else np.zeros(0)
    return Pairs(np.repeat(np.arange(users), sizes), joined, checked_gains("gains", gain))


def checked_gains(argument: str, gains: np.ndarray) -> np.ndarray:
    gains = np.asarray(gains, "float64")
    bad = ~np.isfinite(gains) | (gains <= 0)
    if bad.any():
        raise ValueError(f"`{argument}` must have gains that are > 0. Received: {check.sample_values(gains[bad])}")
    return gains


class Codes:
    """Ids of several arrays as numbers from 0; the key of a user and an item together is one number.

    Args:
        **arrays: Arrays of ids by the name of the argument that they came from.
    """

    def __init__(self, **arrays: np.ndarray):
        kinds = {name: _is_number(array) for name, array in arrays.items() if array.size}
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"{name} of {'whole numbers' if number else 'strings'}" for name, number in kinds.items())
            raise ValueError(f"`{next(iter(kinds))}` must hold ids of the kind that the others have. Received: {said}")
        parts = [array.reshape(-1) for array in arrays.values() if array.size]
        joined = np.concatenate(parts) if parts else np.zeros(0, "int64")
        self.index = pd.Index(joined[is_filled(joined)]).unique()
        self.size = max(len(self.index), 1)

    def of(self, array: np.ndarray) -> np.ndarray:
        """The codes; -1 for an empty place and for an id that was not among the arrays."""
        if not array.size:
            return np.zeros(array.shape, "int64")
        return self.index.get_indexer(array.reshape(-1)).reshape(array.shape)

    def keys(self, users: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return users.astype("int64") * self.size + codes

    def names(self, codes: np.ndarray) -> str:
        """Some ids, for an error message."""
        return check.sample_values(self.index[codes])


def refuse_duplicates(argument: str, keys: np.ndarray, codes: Codes) -> None:
    """An id twice with one user."""
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice):
        users = np.unique(twice // codes.size)
        raise ValueError(
            f"`{argument}` must name an id once for a user. Received: {len(users)} users with an id twice, the first "
            f"in row {int(users[0])}: {codes.names(twice[twice // codes.size == users[0]] % codes.size)}"
        )


def refuse_unknown(argument: str, array: np.ndarray, catalogue: np.ndarray) -> None:
    """An id that the catalogue does not have."""
    ids = array[is_filled(array)]
    known = pd.Index(catalogue)
    unknown = ids[known.get_indexer(ids) < 0] if ids.size else ids
    if len(unknown):
        raise ValueError(
            f"`{argument}` must hold ids of the catalogue. Received: {len(unknown)} others, "
            f"{check.sample_values(unknown)}"
        )


def checked_cuts(k: int | Sequence[int]) -> tuple[int, ...]:
    """The cut-offs, ascending and each once."""
    cuts = [k] if isinstance(k, int | np.integer) else list(k)
    if not cuts:
        raise ValueError("`k` must hold at least one whole number. Received: k=()")
    return tuple(sorted({check.check_int("k", cut) for cut in cuts}))


def compacted(lists: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The lists without the places that are not kept; those behind move up."""
    order = np.argsort(~keep, axis=1, kind="stable")
    moved = np.take_along_axis(lists, order, axis=1)
    moved[~np.take_along_axis(keep, order, axis=1)] = EMPTY
    return moved


def table_of(split: Any, columns: Sequence[str], argument: str) -> pd.DataFrame:
    """The columns of a table, or of the parts of a split."""
    parts = [getattr(split, part) for part in ("labels", "groups", "inputs") if hasattr(split, part)] or [split]
    found: dict[str, np.ndarray] = {}
    for name in columns:
        holders = [part for part in parts if name in (part.column_names if hasattr(part, "column_names") else part)]
        if not holders:
            raise ValueError(f"`{argument}` must have the column {name!r}. Received: {sorted(map(str, parts[0]))[:20]}")
        found[name] = np.asarray(holders[0][name]).reshape(-1)
    return pd.DataFrame(found)
