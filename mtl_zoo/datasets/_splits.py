"""How rows come into splits of 80, 10 and 10 %: by time, within users, or whole users and items held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.datasets._base import shares

NAMES = ("train", "validation", "test")
RULES = {
    "time": "80/10/10 by time over all rows",
    "user": "each user's rows 80/10/10 at random (seed {seed})",
    "cold_items": "{items} 80/10/10 at random, each with all of its rows (seed {seed})",
    "cold_users": "users 80/10/10 at random, each with all of their rows (seed {seed})",
}


def time_split(times: Any) -> np.ndarray:
    """0, 1, 2 for the first 80 %, the next 10 % and the last 10 % of the rows; equal times keep the rows' order."""
    order = np.argsort(np.asarray(times), kind="stable")
    part = np.empty(len(order), "int8")
    for i, cut in enumerate(shares(len(order), 0.8, 0.1, 0.1)):
        part[order[cut]] = i
    return part


def user_split(users: np.ndarray, seed: int) -> np.ndarray:
    """0, 1, 2 for 80 %, 10 % and 10 % of each user's rows, drawn at random.

    Args:
        users: A user id for each row.
        seed: Of the draw.

    Returns:
        int8 array of 0 (train), 1 (validation) and 2 (test).

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.datasets.movielens import user_split
    >>> np.bincount(user_split(np.repeat([7, 8], 10), seed=0)).tolist()
    [16, 2, 2]
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(users)), users))
    ordered = users[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(users)))
    rank = np.arange(len(users)) - np.repeat(starts, counts)
    # The middle of the row's place in its user's list, so that the shares hold on average for any length.
    place = (rank + 0.5) / np.repeat(counts, counts)
    part = np.empty(len(users), "int8")
    part[order] = (place >= 0.8).astype("int8") + (place >= 0.9)
    return part


def cold_split(ids: Any, seed: int) -> np.ndarray:
    """0, 1, 2 for the rows of 80 %, 10 % and 10 % of the ids: nothing of a held-out id is in the training rows."""
    codes, known = pd.factorize(np.asarray(ids), sort=True)
    if len(known) < 10:
        raise ValueError(f"`split` needs at least 10 different ids to hold some out. Received: {len(known)}")
    of_id = np.empty(len(known), "int8")
    order = np.random.default_rng(seed).permutation(len(known))
    for i, cut in enumerate(shares(len(known), 0.8, 0.1, 0.1)):
        of_id[order[cut]] = i
    return of_id[codes]


def split_rows(
    rows: pd.DataFrame, split: str, seed: int, *, user: str, item: str, time: str | None = None, items: str = "items"
) -> tuple[np.ndarray, str]:
    """0, 1, 2 for each row by one of `RULES`, and the rule in words.

    Args:
        rows: With the columns that the rule reads.
        split: `"time"`, `"user"`, `"cold_items"` or `"cold_users"`.
        seed: Of what is drawn.
        user, item, time: Names of columns.
        items: What the items are called.
    """
    part = {
        "time": lambda: time_split(rows[time]),
        "user": lambda: user_split(rows[user].to_numpy(), seed),
        "cold_items": lambda: cold_split(rows[item], seed),
        "cold_users": lambda: cold_split(rows[user], seed),
    }[split]()
    return part, RULES[split].format(seed=seed, items=items)


def cut(rows: pd.DataFrame, part: np.ndarray) -> dict[str, pd.DataFrame]:
    """The rows of each part as a table, by the split's name.

    Raises:
        ValueError: A split has no row.
    """
    tables = {name: rows[part == i].reset_index(drop=True) for i, name in enumerate(NAMES)}
    empty = [name for name, table in tables.items() if table.empty]
    if empty:
        raise ValueError(f"`split` must leave rows in every part. Received: none in {empty}, of {len(rows)} rows")
    return tables


def without_training_row(ids: Any, part: np.ndarray, what: str) -> str:
    """A note: what share of the test rows has an id that no training row has."""
    array = np.asarray(ids)
    new = ~np.isin(array[part == 2], array[part == 0])
    return f"{new.mean():.1%} of the test rows are of {what} without a training row"
