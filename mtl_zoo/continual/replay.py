"""Rows of past days that are mixed among today's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._files import intact, read_header, refuse_other_content, whole_folder
from mtl_zoo.features._columns import read_table

_META, _ROWS, _WHAT = "replay.json", "rows.parquet", "a replay buffer"
FORMAT = 1


class ReplayBuffer:
    """A sample of all rows that were added, in which each of them is with the same probability.

    Row i of all rows (from 0), in the order in which they are added, is kept at place i while there is room; later it
    draws j uniformly from 0 .. i and takes place j if j < size:

        P(row i is in the sample after n rows) = size / n   for every i < n

    Rows are those of tables, not encoded, so that they are read by whatever transform is the newest.

    Args:
        size: The most rows.
        seed: Of the draws.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.continual import ReplayBuffer
    >>> buffer = ReplayBuffer(size=3)
    >>> for day in range(4):
    ...     buffer.add(pd.DataFrame({"day": [day] * 10}))
    >>> len(buffer), buffer.rows_seen
    (3, 40)
    >>> len(buffer.mixed(pd.DataFrame({"day": [4] * 10}), ratio=0.2))
    12

    Reference: Vitter, Random sampling with a reservoir, ACM TOMS 11(1), 1985 (Algorithm R); Chaudhry et al.,
    arXiv:1902.10486, for rows of a reservoir in continual learning.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = check.check_int("size", size)
        self.seed = check.check_int("seed", seed, minimum=0)
        self.rows_seen = 0
        self._rows: pd.DataFrame | None = None
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    @property
    def rows(self) -> pd.DataFrame:
        """The sample."""
        return pd.DataFrame() if self._rows is None else self._rows

    def add(self, table: Any) -> None:
        """Takes up the rows of a table.

        Args:
            table: A pandas DataFrame, a pyarrow Table or a dict of arrays, with the columns of those before it.

        Raises:
            ValueError: It has other columns, or no row.
        """
        frame, kept = self._checked(table).reset_index(drop=True), self._rows
        number = np.arange(self.rows_seen, self.rows_seen + len(frame))
        drawn = self._rng.integers(0, number + 1)
        places = np.where(number < self.size, number, drawn)
        at = np.flatnonzero(places < self.size)
        # Of several rows that take one place, the last one stays.
        last = pd.Series(at, index=places[at]).groupby(level=0).last()
        rows = frame.iloc[last.to_numpy()].set_axis(last.index, axis=0)
        if kept is not None:
            rows = pd.concat([kept.drop(index=rows.index, errors="ignore"), rows[kept.columns]])
        self._rows = rows.sort_index()
        self.rows_seen += len(frame)

    def mixed(self, table: Any, ratio: float) -> pd.DataFrame:
        """A table's rows, and beside them rows of the sample: `ratio` times as many, drawn without repetition.

        Args:
            table: Today's rows.
            ratio: How many rows of the sample come to a row of the table; fewer where the sample is smaller.

        Raises:
            ValueError: It has other columns than the sample.
        """
        frame = self._checked(table)
        check.check_number("ratio", ratio, minimum=0)
        count = min(round(ratio * len(frame)), len(self))
        if not count:
            return frame
        at = self._rng.choice(len(self), count, replace=False)
        return pd.concat([frame, self.rows.iloc[at][list(frame.columns)]], ignore_index=True)

    def _checked(self, table: Any) -> pd.DataFrame:
        frame = read_table(table)
        if self._rows is not None and set(self._rows.columns) != set(frame.columns):
            raise ValueError(
                f"`table` must have the columns of the rows before it, {list(self._rows.columns)}. "
                f"Received: {list(frame.columns)}"
            )
        return frame

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the sample and the state of the draws to a folder, whole or not at all."""
        folder = Path(folder).absolute()
        refuse_other_content("folder", folder, _META, _WHAT)
        with whole_folder(folder) as part:
            self.write(part)

    def write(self, folder: Path) -> None:
        """Writes into a folder that someone else puts in its place."""
        state = {"format": FORMAT, "size": self.size, "seed": self.seed, "rows_seen": self.rows_seen}
        (folder / _META).write_text(json.dumps({**state, "random": self._rng.bit_generator.state}), encoding="utf-8")
        if self._rows is not None:
            self._rows.to_parquet(folder / _ROWS)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> ReplayBuffer:
        """The buffer that `save` wrote; it goes on with the draws that would have come.

        Raises:
            FileNotFoundError: There is none in the folder.
            ValueError: A newer version of mtl_zoo wrote it, or it is damaged.
        """
        folder = Path(folder)
        keys = {"size": int, "seed": int, "rows_seen": int, "random": dict}
        meta = read_header(folder, _META, _WHAT, FORMAT, keys)
        with intact(folder / _META, _WHAT):
            buffer = cls(meta["size"], meta["seed"])
            buffer._rng.bit_generator.state = meta["random"]
            buffer.rows_seen = meta["rows_seen"]
            if buffer.rows_seen:
                buffer._rows = pd.read_parquet(folder / _ROWS)
        return buffer
