"""Rows of users as they are asked for, and what users have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import read_table
from mtl_zoo.recommend._ids import id_array, refuse_other_kind, table_of


class Users:
    """What is known of users, and how rows of requests are completed by it.

    Args:
        table: A row a user, or None.
        user: The column of ids.
        columns: What the model reads of a user.
    """

    def __init__(self, table: Any, user: str, columns: Sequence[str]):
        self.user, self.columns = user, list(columns)
        self.table: pd.DataFrame | None = None
        if table is None:
            return
        frame = table if isinstance(table, pd.DataFrame) else read_table(table)
        missing = [column for column in [user, *self.columns] if column not in frame.columns]
        if user in missing or frame[user].isna().any() or not frame[user].is_unique:
            raise ValueError(
                f"`users` must have the column {user!r} with each id once, or `user` must name another. Received: "
                f"{[str(name) for name in frame.columns][:20]}"
            )
        # Columns that requests alone know, such as the hour, need not be there.
        self.table = frame.reset_index(drop=True)
        self._index = pd.Index(id_array(f"users[{user!r}]", self.table[user].to_numpy()))

    def rows(self, users: Any) -> tuple[pd.DataFrame, list[Any], bool]:
        """The rows of users, their names, and whether one was asked for alone."""
        single = isinstance(users, Mapping)
        frame = self._frame([users] if isinstance(users, Mapping) else users)
        names = frame[self.user].tolist() if self.user in frame.columns else list(range(len(frame)))
        missing = [column for column in self.columns if column not in frame.columns]
        if missing:
            frame = self._completed(frame, names, missing)
        return frame, names, single

    def _frame(self, users: Any) -> pd.DataFrame:
        if isinstance(users, pd.DataFrame):
            frame = users
        elif isinstance(users, str | bytes) or not np.ndim(users):
            raise ValueError(
                f"`users` must be a dict, a DataFrame, a list of dicts, or a list of ids. Received: {users!r:.100}"
            )
        elif any(isinstance(user, Mapping) for user in users):
            frame = self._of_dicts(users)
        else:
            frame = pd.DataFrame({self.user: id_array("users", users)})
        if not len(frame):
            raise ValueError("`users` must hold at least one user. Received: none")
        return frame.reset_index(drop=True)

    def _completed(self, frame: pd.DataFrame, names: list[Any], missing: list[str]) -> pd.DataFrame:
        known = [] if self.table is None else [column for column in missing if column in self.table.columns]
        unknown = [column for column in missing if column not in known]
        if unknown or self.user not in frame.columns:
            raise ValueError(
                f"`users` must have the columns that the model reads of a user, {self.columns}. Received without: "
                f"{unknown or missing}. It has: {[str(name) for name in frame.columns][:20]}"
            )
        assert self.table is not None
        rows = self._index.get_indexer(pd.Index(id_array("users", names)))
        if (rows < 0).any():
            strangers = [name for name, row in zip(names, rows, strict=True) if row < 0]
            raise ValueError(
                f"`users` must have the columns {missing} where a user is not in the recommender's table of users. "
                f"Received: {check.sample_values(strangers)}, who are not"
            )
        return frame.assign(**{column: self.table[column].to_numpy()[rows] for column in known})

    def _of_dicts(self, users: Sequence[Any]) -> pd.DataFrame:
        """A table of dicts; what one of them leaves out and others have is what the table of users says, or missing."""
        wrong = [user for user in users if not isinstance(user, Mapping)]
        if wrong:
            raise ValueError(f"`users` must all be dicts if one is. Received: {check.sample_values(wrong)}")
        columns = dict.fromkeys(str(column) for user in users for column in user)

        def series(column: str) -> pd.Series:
            cells = [user[column] if column in user else self._known(user.get(self.user), column) for user in users]
            # Whole numbers beside a missing one would become floats.
            return pd.Series(cells, dtype=object if any(cell is None or np.ndim(cell) for cell in cells) else None)

        return pd.DataFrame({column: series(column) for column in columns})

    def _known(self, name: Any, column: str) -> Any:
        """A cell of the table of users; None where there is none."""
        if self.table is None or column not in self.columns or column not in self.table.columns:
            return None
        try:
            value = self.table[column].iloc[self._index.get_loc(name)]
        except (KeyError, TypeError):  # a stranger, or what is no id
            return None
        return None if np.ndim(value) == 0 and pd.isna(value) else value


def lists_of(argument: str, ids: Any, users: int, single: bool) -> list[Any] | None:
    """A list of ids for each user."""
    if ids is None:
        return None
    lists = [ids] if single else list(ids)
    if len(lists) != users or any(isinstance(one, str | bytes) or not np.ndim(one) for one in lists):
        what = "a list of ids" if single else f"a list of ids for each of {users} users"
        raise ValueError(f"`{argument}` must be {what}. Received: {argument}={str(ids)[:100]}")
    for one in lists:
        id_array(argument, [value for value in one if value is not None])
    return lists


class Seen:
    """The items that each user has seen.

    Args:
        table: Users and items, a pair a row.
        user, item: Its columns.
    """

    def __init__(self, table: pd.DataFrame | None, user: str, item: str):
        self.table, self._user, self._item = table, user, item
        self._items: dict[Any, np.ndarray] = {}
        if table is not None and len(table):
            users, items = id_array(user, table[user].to_numpy()), id_array(item, table[item].to_numpy())
            is_named = ~pd.isna(users)  # a pair without a user hides nothing
            users, items = users[is_named], items[is_named]
            codes, names = pd.factorize(users)
            order = np.argsort(codes, kind="stable")
            parts = np.split(items[order], np.cumsum(np.bincount(codes))[:-1])
            self._items = dict(zip(names.tolist(), parts, strict=True))

    @classmethod
    def of(cls, rows: Any, user: str, item: str) -> Seen:
        """From a table or a split."""
        table = None if rows is None else table_of(rows, [user, item], "exclude").drop_duplicates()
        return cls(table, user, item)

    def check_items(self, catalogue: Any) -> None:
        """Refuses pairs whose items are of another kind than the catalogue's, and would hide nothing."""
        if self.table is not None:
            refuse_other_kind("exclude", self.table[self._item], catalogue)

    def check_users(self, argument: str, users: Any) -> None:
        """Refuses users of another kind than those of the pairs, from whom nothing would be hidden."""
        if self.table is not None:
            refuse_other_kind(argument, users, self.table[self._user])

    def of_user(self, name: Any) -> np.ndarray:
        """The items of a user, or none."""
        try:
            return self._items.get(name, np.zeros(0, "int64"))
        except TypeError:  # not hashable, so it names nobody
            return np.zeros(0, "int64")
