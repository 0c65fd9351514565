"""A table of the user's own as a data set: read, split, its tasks and features found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Dataset, fitted_dataset
from mtl_zoo.datasets._table_splits import check_column, split_table
from mtl_zoo.features.generated import refuse_generated
from mtl_zoo.features.spec import Feature
from mtl_zoo.features.transform import FeatureTransform
from mtl_zoo.tasks import TASKS, Task

Table = pd.DataFrame | str | Path


def dataset_from_table(
    train: Table,
    validation: Table | None,
    test: Table | None,
    tasks: Any,
    *,
    features: Sequence[Feature],
    exclude: Sequence[str],
    groups: Sequence[str],
    time: str | None,
    together: str | None,
    folds: int | None,
    fold: int,
    seed: int,
    embedding_dim: int,
    name: str,
) -> Dataset:
    """What `Dataset.from_table` does."""
    if (validation is None) != (test is None):
        missing, given = ("validation", "test") if validation is None else ("test", "validation")
        raise ValueError(f"`validation` and `test` must be given both or neither. Received: {given}, but no {missing}")
    tables = {"train": read_rows("train", train)}
    if validation is None:
        refuse_generated("train", tables["train"])
    version = None
    if validation is not None and test is not None:
        tables |= {"validation": read_rows("validation", validation), "test": read_rows("test", test)}
        rule = "rows as the given tables have them"
    else:
        # Folds are parts of the same data.
        version = _version(tables) if folds is not None else None
        tables, rule = split_table(tables["train"], time=time, together=together, seed=seed, folds=folds, fold=fold)
    found = tasks_of(tables["train"], tasks)
    for column in (groups,) if isinstance(groups, str) else tuple(groups):
        check_column("groups", column, tables["train"])
    left_out = [*((exclude,) if isinstance(exclude, str) else exclude), *([time] if time else [])]
    inferred = FeatureTransform.infer(
        tables["train"], found, exclude=tuple(left_out), features=features, embedding_dim=embedding_dim
    )
    return fitted_dataset(
        tables=tables,
        features=inferred.features,
        tasks=found,
        group_columns=(groups,) if isinstance(groups, str) else tuple(groups),
        name=check.suggest_name(name),
        variant="table",
        version=version or _version(tables),
        split_rule=rule,
        keep_raw=True,
    )


def read_rows(argument: str, table: Table) -> pd.DataFrame:
    """A table of the user's: a DataFrame, or a CSV or Parquet file."""
    if isinstance(table, pd.DataFrame):
        found = table
    else:
        path = Path(table)
        if not path.is_file():
            raise ValueError(f"`{argument}` must be a table, or a file that is there. Received: {path}")
        try:
            found = pd.read_parquet(path) if is_parquet(path) else pd.read_csv(path)
        except (ValueError, OSError) as error:  # pandas' and Arrow's own errors are kinds of these
            words = str(error).strip().splitlines()[0]
            raise ValueError(f"`{argument}` must be a whole CSV or Parquet file. Received: {path} ({words})") from error
    if found.empty:
        raise ValueError(f"`{argument}` must have rows. Received: {0 if len(found) == 0 else len(found)} rows")
    return found


def is_parquet(path: str | Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return str(path).endswith((".parquet", ".pq"))


def tasks_of(table: pd.DataFrame, given: Any) -> tuple[Task, ...]:
    """Tasks from tasks, names of label columns, or a mapping of names to kinds or keywords."""
    if isinstance(given, (str, Task)):
        given = (given,)
    if not isinstance(given, (Mapping, Sequence)) or not given:
        raise ValueError(f"`tasks` must name at least one label column. Received: tasks={given!r}")
    wanted = given if isinstance(given, Mapping) else dict.fromkeys(given)
    return tuple(name if isinstance(name, Task) else _task(table, name, about) for name, about in dict(wanted).items())


def _task(table: pd.DataFrame, name: Any, about: Any) -> Task:
    keywords = dict(about) if isinstance(about, Mapping) else {} if about is None else {"kind": about}
    label = keywords.pop("label", name)
    check_column("tasks", label, table)
    kind = keywords.pop("kind", None)
    values = table[label].dropna().unique()
    if kind is None:
        kind = _kind_of(label, values)
    check.check_choice(f"tasks[{name!r}]", kind, tuple(TASKS))
    try:
        return TASKS[kind](
            check.suggest_name(str(name)), label=label, **{**TASKS[kind].keywords_of(values), **keywords}
        )
    except TypeError as error:
        raise ValueError(
            f"`tasks` must give keywords of {TASKS[kind].__name__}. Received: {name!r}: {error}"
        ) from error


def _kind_of(label: Any, values: Any) -> str:
    """The first kind of task that labels of these values are clearly of."""
    for kind in TASKS.in_order():
        if len(values) and kind.is_for(values):
            return kind.kind
    raise ValueError(
        "`tasks` must name columns of labels: 0 and 1, numbers, or a few strings. Received: "
        f"{label!r} with {len(values):,} different values such as {check.sample_values(values)}"
    )


def _version(tables: Mapping[str, pd.DataFrame]) -> str:
    digest = hashlib.sha256()
    for table in tables.values():
        digest.update(",".join(map(str, table.columns)).encode())
        # Cells that are lists have no hash of their own.
        plain = table.map(lambda cell: str(cell) if isinstance(cell, (list, np.ndarray)) else cell)
        digest.update(pd.util.hash_pandas_object(plain, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:12]
