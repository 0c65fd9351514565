"""Tables with partly different columns, side by side as one: what a table lacks is missing in its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features import _labels
from mtl_zoo.features._columns import EMPTY, Column, read_table
from mtl_zoo.features._states import may_lack, same_kind
from mtl_zoo.tasks import Task


def fills_of(
    features: Iterable[str], tasks: Sequence[Task] = (), sample_weight: str | None = None
) -> dict[str, float | None]:
    """The columns that are read, and what stands for each in a table that lacks it.

    A feature and a label are missing (None), a sample space that is no label is 0, and a weight is 1.
    """
    labels = {task.label_column for task in tasks}
    fills: dict[str, float | None] = dict.fromkeys(features)
    fills |= {name: None if name in labels else 0.0 for name in _labels.label_columns(tasks)}
    return fills | dict.fromkeys(_labels.weight_columns(tasks, sample_weight), 1.0)


def completed(
    frame: pd.DataFrame, absent: Sequence[Collection[str]], fills: Mapping[str, float | None]
) -> pd.DataFrame:
    """The table with the columns that it lacks and one of the tables that were fitted lacked, too.

    Whoever reads it refuses it for what else it lacks.
    """
    excused = may_lack([name for name in fills if name not in frame.columns], absent)
    made = {name: [fills[name]] * len(frame) for name in excused}
    columns = {name: np.array(v, object if fills[name] is None else float) for name, v in made.items()}
    return frame.assign(**columns) if columns else frame


def read_labels(
    frame: pd.DataFrame, tasks: Sequence[Task], absent: Sequence[Collection[str]], *, whole: bool = True
) -> dict[str, np.ndarray]:
    """The labels of a table, which may lack those that one of the tables that were fitted lacked."""
    fills = fills_of((), tasks)
    whole = whole and all(name in frame.columns for name in fills)
    return _labels.read_labels(completed(frame, absent, fills), tasks, whole=whole)


def read_weights(
    frame: pd.DataFrame,
    tasks: Sequence[Task],
    sample_weight: str | None,
    absent: Sequence[Collection[str]],
    *,
    whole: bool = True,
) -> Any:
    """The weights of a table, 1 where it lacks those that one of the tables that were fitted lacked."""
    fills = dict.fromkeys(_labels.weight_columns(tasks, sample_weight), 1.0)
    return _labels.read_weights(completed(frame, absent, fills), tasks, sample_weight, whole=whole)


def training_table(
    table: Any, features: Iterable[str], tasks: Sequence[Task], sample_weight: str | None
) -> tuple[pd.DataFrame, tuple[tuple[str, ...], ...]]:
    """What `fit` is given as one table, and the columns that each of several lacks; () of a single one."""
    if not isinstance(table, SeveralTables):
        return read_table(table), ()
    return table.joined(fills_of(features, tasks, sample_weight))


def later_table(table: Any, features: Iterable[str], absent: Sequence[Collection[str]]) -> pd.DataFrame:
    """What `extend` is given as one table; it may lack the columns that one of the tables that were fitted lacked."""
    wanted = dict.fromkeys(features)
    if isinstance(table, SeveralTables):
        frames = table.frames()
        held = {c: None for c in wanted if c == table.column or any(c in frame for frame in frames.values())}
        table = below_each_other(frames, held, table.column)
    return completed(read_table(table), absent, wanted)


class SeveralTables:
    """Base of what holds several tables for `FeatureTransform.fit`.

    Attributes:
        column: Name of the column that says which table a row is from.
    """

    column: str

    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        raise NotImplementedError

    def joined(self, fills: Mapping[str, float | None]) -> tuple[pd.DataFrame, tuple[tuple[str, ...], ...]]:
        """One table of some columns, and for each table the columns that it lacks.

        Args:
            fills: The columns, and what stands for each in a table that lacks it.

        Raises:
            ValueError: No table has a column, or two hold different kinds of values under one name.
        """
        frames = self.frames()
        nowhere = [c for c in fills if c != self.column and not any(c in frame for frame in frames.values())]
        if nowhere:
            raise ValueError(
                f"`sources` must hold every column that is read in one of their tables. Received without: {nowhere}. "
                f"They have: { {name: list(map(str, frame.columns))[:20] for name, frame in frames.items()} }"
            )
        # A table that is encoded later need not say where its rows are from.
        absent = tuple(tuple(c for c in fills if c not in frame or c == self.column) for frame in frames.values())
        return below_each_other(frames, fills, self.column), absent


def below_each_other(
    frames: Mapping[str, pd.DataFrame], fills: Mapping[str, float | None], source: str
) -> pd.DataFrame:
    """Columns of several tables as one table.

    Args:
        frames: The tables by name.
        fills: The columns to take, and what stands for each where a table lacks it; None is missing.
        source: The column of the tables' names, if it is among them.

    Raises:
        ValueError: Two tables hold different kinds of values in a column.
    """
    ends = np.cumsum([0, *map(len, frames.values())])
    made = {}
    for column, fill in fills.items():
        if column == source:
            names = [[name] * len(frame) for name, frame in frames.items()]
            made[column] = pd.Series([name for part in names for name in part], dtype=object)
            continue
        parts = {name: frame[column] for name, frame in frames.items() if column in frame}
        _check_kinds(column, parts)
        starts = dict(zip(frames, ends, strict=False))
        placed = [part.set_axis(range(starts[name], starts[name] + len(part))) for name, part in parts.items()]
        made[column] = _filled(placed, int(ends[-1]), fill)
    return pd.DataFrame(made)


def _filled(parts: Sequence[pd.Series], rows: int, fill: Any) -> pd.Series:
    """Parts of a column, and what stands between them; whole numbers stay whole beside missing ones."""
    whole = sum(map(len, parts)) == rows
    if not whole and fill is None:
        parts = [part.astype(_with_missing(part.dtype)) for part in parts]
    given = [part for part in parts if not (part.dtype == object and part.isna().all())]
    found = pd.concat(given) if given else parts[0]
    found = found.reindex(range(rows))
    if found.dtype == object:
        return found.where(found.notna(), None)
    return found if fill is None else found.fillna(fill)


def _with_missing(dtype: Any) -> Any:
    if isinstance(dtype, np.dtype) and dtype.kind == "b":
        return "boolean"
    if isinstance(dtype, np.dtype) and dtype.kind in "iu":
        return pd.UInt64Dtype() if dtype == np.uint64 else pd.Int64Dtype()
    return dtype


def _check_kinds(column: str, parts: Mapping[str, pd.Series]) -> None:
    held = {name: Column(column, part) for name, part in parts.items()}
    held = {name: found for name, found in held.items() if found.kind != EMPTY}
    kinds = {name: found.shown for name, found in held.items()}
    first = next(iter(held.values()), None)
    if first is not None and not all(same_kind(first, other) for other in held.values()):
        raise ValueError(f"`{column}` must hold the same kind of values in all sources. Received: {kinds}")
