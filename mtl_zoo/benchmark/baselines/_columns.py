"""What a baseline reads of a data set: the same columns that the networks' features read, as numbers and as ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.datasets import Dataset, Split
from mtl_zoo.features.categorical import is_named_like_an_id
from mtl_zoo.features.requests import FIRST_ID
from mtl_zoo.features.spec import Feature

# Values of a list that have a column of their own: those that are most common in the training rows.
MOST_VALUES = 50


@dataclasses.dataclass(frozen=True)
class Columns:
    """A table of plain columns, and what they are.

    Args:
        frame: One row a row of the split; numbers are float64 with NaN where missing, ids strings or None.
        numbers: Names of columns that are numbers. Of lists of values (multi-hot features and sequences) they are how
            often a row's list holds each of the 50 most common values, or the sum of their weights.
        ids: Names of columns whose values are categories.
        codes: Names of the columns in which small whole numbers (an hour, a code) of `numbers` stand as categories, for
            a linear model, which would else see a slope in them.
        left_out: Features that are neither, such as texts.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo.benchmark.baselines import Columns
    >>> Columns(pd.DataFrame({"price": [1.0, 2.0]}), ("price",), ()).rows([1]).frame["price"].tolist()
    [2.0]
    """

    frame: pd.DataFrame
    numbers: tuple[str, ...]
    ids: tuple[str, ...]
    codes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, chosen: Any) -> Columns:
        """The rows at these positions, or where this mask is true."""
        return dataclasses.replace(self, frame=self.frame.loc[np.asarray(chosen)].reset_index(drop=True))


def columns_of(dataset: Dataset, features: Sequence[Feature]) -> dict[str, Columns]:
    """The columns of each split: raw ones where the data set keeps them, else those that the networks get.

    Example:

    >>> from mtl_zoo.benchmark.baselines import columns_of
    >>> from mtl_zoo.datasets import load_dataset
    >>> data = load_dataset("synthetic_funnel", size="small")
    >>> columns = columns_of(data, data.features)["test"]
    >>> len(columns) == len(data.test), len([*columns.ids, *columns.numbers, *columns.left_out])
    (True, 14)
    """
    keeps_raw = all(split.raw is not None for split in dataset.splits.values())
    common = {f.source: _most_common(dataset.train, f) for f in features if _holds_lists(f)}
    return {
        name: _of_raw(dataset.table(name), dataset.table("train"), split, features, common)
        if keeps_raw
        else _of_inputs(split, features, common)
        for name, split in dataset.splits.items()
    }


def _of_raw(
    table: pd.DataFrame,
    train: pd.DataFrame,
    split: Split,
    features: Sequence[Feature],
    common: Mapping[str, np.ndarray],
) -> Columns:
    found: dict[str, Any] = {}
    numbers, ids, codes, left_out = (list[str]() for _ in range(4))
    sources = dict.fromkeys(feature.source for feature in features)
    for source in sources:
        feature = next(feature for feature in features if feature.source == source)
        if _holds_lists(feature):
            counts = {_free(name, sources): n for name, n in _of_list(split, feature, common[source]).items()}
            found |= counts
            numbers += list(counts)
            continue
        kind = train[source].dtype  # a split may happen to hold none of the strings
        is_number = pd.api.types.is_numeric_dtype(kind)
        if pd.api.types.is_datetime64_any_dtype(kind) or _holds_dates(train[source]):
            times = pd.to_datetime(table[source])
            parts = {_free(name, sources): part for name, part in _of_time(times, source).items()}
            found |= parts
            numbers += list(parts)
            continue
        if is_number and not (feature.is_id and is_named_like_an_id(source)):
            numeric = pd.to_numeric(table[source], errors="coerce").astype("float64")
            found[source] = numeric.where(np.isfinite(numeric))
            numbers.append(source)
        if feature.is_id and (is_number or _holds_single_values(train[source])):
            name = _free(f"{source} as a category", sources) if source in found else source
            (codes if source in found else ids).append(name)
            found[name] = _texts(table[source])
        elif not is_number:
            left_out.append(feature.name)
    frame = pd.DataFrame(found, index=range(len(table)))
    return Columns(frame, tuple(numbers), tuple(ids), tuple(codes), tuple(left_out))


def _of_inputs(split: Split, features: Sequence[Feature], common: Mapping[str, np.ndarray]) -> Columns:
    found: dict[str, Any] = {}
    numbers, ids, left_out = (list[str]() for _ in range(3))
    for feature in features:
        if _holds_lists(feature):
            counts = _of_list(split, feature, common[feature.source])
            found |= counts
            numbers += list(counts)
            continue
        for name in feature.input_specs():
            array = np.asarray(split.inputs[name])
            if array.dtype.kind == "f" and array.ndim <= 2:
                wide = array.reshape(len(array), -1).astype("float64")
                names = [name] if wide.shape[1] == 1 else [f"{name}.{i}" for i in range(wide.shape[1])]
                found |= dict(zip(names, wide.T, strict=True))
                numbers += names
            elif array.dtype.kind in "iu" and array.ndim == 1:
                found[name] = pd.Series(array).astype("str").astype("object")
                ids.append(name)
            else:
                left_out.append(name)
    frame = pd.DataFrame(found, index=range(len(split)))
    return Columns(frame, tuple(numbers), tuple(ids), left_out=tuple(left_out))


def _holds_lists(feature: Feature) -> bool:
    """Whether it holds several values a row; texts, of which a model reads the pieces, do not."""
    return bool(getattr(feature, "holds_lists", False))


def _most_common(train: Split, feature: Feature) -> np.ndarray:
    """The ids of the values that are most common in the training rows, at most `MOST_VALUES`."""
    ids = np.asarray(train.inputs[next(iter(feature.input_specs()))])
    counts = np.bincount(ids.ravel(), minlength=FIRST_ID)
    counts[:FIRST_ID] = 0  # missing and unknown ones
    order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    return order[counts[order] > 0]


def _of_list(split: Split, feature: Feature, common: np.ndarray) -> dict[str, np.ndarray]:
    """How often each row's list holds each of the values, or the sum of their weights."""
    ids, *weights = (np.asarray(split.inputs[name]) for name in feature.input_specs())
    place = np.full(max(ids.max(initial=0), common.max(initial=0)) + 1, len(common))
    place[common] = np.arange(len(common))
    cell = place[ids] + np.arange(len(ids))[:, None] * (len(common) + 1)
    of_cell = weights[0].ravel() if weights else None
    counts = np.bincount(cell.ravel(), of_cell, minlength=len(ids) * (len(common) + 1)).reshape(len(ids), -1)
    return {f"{feature.name}.{i}": counts[:, i].astype("float64") for i in range(len(common))}


def _of_time(times: pd.Series, name: str) -> dict[str, np.ndarray]:
    """A moment as numbers: when it was, and where in the day and the week."""
    missing = times.isna().to_numpy()
    days = (times - pd.Timestamp(0, tz=times.dt.tz)) / pd.Timedelta(days=1)
    parts = {"": days, ".hour": times.dt.hour, ".weekday": times.dt.day_of_week}
    return {name + part: np.where(missing, np.nan, values.astype("float64")) for part, values in parts.items()}


def _free(name: str, taken: Collection[str]) -> str:
    """The name of a derived column, changed where a column of the table has it."""
    while name in taken:
        name += "'"
    return name


def _holds_dates(column: pd.Series) -> bool:
    return column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) in ("date", "datetime")


def _holds_single_values(column: pd.Series) -> bool:
    """Whether cells are strings, dates and the like, and no lists."""
    return bool(column.dropna().astype("object").map(pd.api.types.is_scalar).all())


def _texts(column: pd.Series) -> pd.Series:
    return column.reset_index(drop=True).astype("str").astype("object").where(column.notna().to_numpy(), None)
