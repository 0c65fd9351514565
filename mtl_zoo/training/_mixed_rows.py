"""Tables of categories and numbers as matrices, and back: what makers of rows work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features import FeatureTransform
from mtl_zoo.features._labels import label_columns, weight_columns

CATEGORY, NUMBER = "category", "number"
_IS_MISSING = " is missing"


@dataclasses.dataclass(frozen=True, eq=False)
class Category:
    """A column of one of many values; missing is one of them.

    Args:
        name: Of the column.
        values: Those that have a code of their own, the most frequent first.
        rest: (rows,) values of rows that share the last code, or None if all values have one.
    """

    name: str
    values: np.ndarray
    rest: tuple[np.ndarray, np.ndarray] | None

    @property
    def size(self) -> int:
        return len(self.values) + (self.rest is not None)

    @classmethod
    def of(cls, column: pd.Series, most: int, cells: np.ndarray) -> tuple[Category, np.ndarray]:
        """The column, and the code of each row."""
        codes, found = pd.factorize(column, use_na_sentinel=False)
        order = np.argsort(-np.bincount(codes), kind="stable")
        rank = np.empty(len(order), "int64")
        rank[order] = np.arange(len(order))
        values = np.asarray(found, dtype=object)[order]
        kept = len(values) if len(values) <= most else most - 1
        ranks = np.minimum(rank[codes], kept)
        rare = ranks == kept
        rest = (column.to_numpy(dtype=object)[rare], cells[rare]) if kept < len(values) else None
        return cls(str(column.name), values[:kept], rest), ranks

    def decoded(self, codes: np.ndarray, cells: np.ndarray, rng: np.random.Generator) -> list[Any]:
        found = np.empty(len(codes), dtype=object)
        known = codes < len(self.values)
        found[known] = self.values[codes[known]]
        for row in np.flatnonzero(~known):
            assert self.rest is not None
            values, of_cell = self.rest
            alike = values[of_cell == cells[row]]
            found[row] = rng.choice(alike if len(alike) else values)
        return list(found)


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """A column of numbers, in units of its deviation from its mean.

    Args:
        name: Of the column.
        mean, scale, least, most: Of its values.
        is_whole: Whether they are whole.
        may_miss: Whether some are missing, which is then a category of two beside it; of a label its joint label says.
    """

    name: str
    mean: float
    scale: float
    least: float
    most: float
    is_whole: bool
    may_miss: bool

    @classmethod
    def of(cls, column: pd.Series, is_label: bool) -> tuple[Number, np.ndarray, np.ndarray]:
        """The column, its scaled values, and which are missing."""
        values = column.to_numpy("float64", na_value=np.nan)
        missing = np.isnan(values)
        seen = values[~missing] if not missing.all() else np.zeros(1)
        mean, scale = float(seen.mean()), float(seen.std()) or 1.0
        whole = bool((seen == np.round(seen)).all())
        may_miss = bool(missing.any()) and not is_label
        made = cls(str(column.name), mean, scale, float(seen.min()), float(seen.max()), whole, may_miss)
        return made, np.where(missing, 0.0, (values - mean) / scale), missing

    def decoded(self, scaled: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
        values = np.clip(scaled * self.scale + self.mean, self.least, self.most)
        values = np.round(values) if self.is_whole else values
        return values if missing is None else np.where(missing, np.nan, values)


@dataclasses.dataclass(frozen=True, eq=False)
class MixedRows:
    """A table as numbers and codes of categories, with the joint label of each row.

    Args:
        frame: The table.
        numbers: (rows, n) scaled numbers.
        codes: (rows, c) codes of categories; the last are those of missing numbers.
        sizes: How many codes each category has.
        cells: (rows,) which joint label each row has.
        labels: The joint labels, a row each: of labels that are classes their values.
        unseen: For each joint label, which labels that are numbers are missing.
        columns: What the numbers and codes are.
    """

    frame: pd.DataFrame
    numbers: np.ndarray
    codes: np.ndarray
    sizes: tuple[int, ...]
    cells: np.ndarray
    labels: pd.DataFrame
    unseen: pd.DataFrame
    columns: tuple[Category | Number, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, transform: FeatureTransform, most_values: int) -> MixedRows:
        """The columns of a transform's features, labels and weights."""
        of_labels, of_numbers, weights = _label_columns(transform)
        known = [frame[of_labels], frame[of_numbers].isna().add_suffix(_IS_MISSING)]
        joint = pd.concat(known, axis=1)
        cells = joint.groupby(list(joint), dropna=False, sort=False).ngroup().to_numpy("int64")
        first = joint.iloc[np.unique(cells, return_index=True)[1]].reset_index(drop=True)
        labels, unseen = first[of_labels], first.drop(columns=of_labels).rename(columns=_without_suffix)
        kinds = _kinds(transform, [*of_numbers, *weights])
        columns: list[Category | Number] = []
        numbers, codes, missing = [], [], []
        for name, kind in kinds.items():
            if kind == CATEGORY:
                category, found = Category.of(frame[name], most_values, cells)
                columns.append(category)
                codes.append(found)
            else:
                number, scaled, gone = Number.of(frame[name], name in of_numbers)
                columns.append(number)
                numbers.append(scaled)
                missing += [gone.astype("int64")] if number.may_miss else []
        sizes = [c.size for c in columns if isinstance(c, Category)] + [2] * len(missing)
        every = [*codes, *missing]
        rows = len(frame)
        return cls(
            frame,
            np.stack(numbers, axis=1) if numbers else np.zeros((rows, 0)),
            np.stack(every, axis=1) if every else np.zeros((rows, 0), "int64"),
            tuple(sizes),
            cells,
            labels,
            unseen,
            tuple(columns),
        )

    def matching(self, wanted: Mapping[str, Any]) -> np.ndarray:
        """The numbers of the joint labels that have the wanted values.

        Raises:
            ValueError: A name is no label, or no row has these labels.
        """
        unknown = [name for name in wanted if name not in self.labels]
        if unknown or not wanted:
            raise ValueError(
                "`labels` must hold the label that generated rows have, by its column. Received: "
                f"labels={dict(wanted)!r}. Expected: names among {list(self.labels)}"
            )
        fits = np.logical_and.reduce([(self.labels[name] == value).to_numpy(bool) for name, value in wanted.items()])
        if not fits.any():
            raise ValueError(f"`labels` must be those of some row of the table. Received: labels={dict(wanted)!r}")
        return np.flatnonzero(fits)

    def decoded(
        self, numbers: np.ndarray, codes: np.ndarray, cells: np.ndarray, rng: np.random.Generator
    ) -> pd.DataFrame:
        """Raw rows, in the types of the table where these hold what is missing."""
        found: dict[str, Any] = {}
        number, category = 0, 0
        missing = sum(isinstance(c, Category) for c in self.columns)
        for column in self.columns:
            if isinstance(column, Category):
                values: Any = column.decoded(codes[:, category], cells, rng)
                category += 1
            else:
                gone = codes[:, missing] == 1 if column.may_miss else None
                if column.name in self.unseen:
                    gone = self.unseen[column.name].to_numpy(bool)[cells]
                values = column.decoded(numbers[:, number], gone)
                number, missing = number + 1, missing + column.may_miss
            found[column.name] = _typed(values, self.frame[column.name])
        for name in self.labels:
            found[str(name)] = self.labels[name].take(cells).reset_index(drop=True)
        return pd.DataFrame(found)


def _typed(values: Any, like: pd.Series) -> pd.Series:
    made = pd.Series(list(values), dtype=object if like.dtype == object else None)
    if like.dtype == object:
        return made
    try:
        return made.astype(like.dtype)
    except (TypeError, ValueError):
        return made


def _label_columns(transform: FeatureTransform) -> tuple[list[str], list[str], list[str]]:
    """Columns of labels and sample spaces that are classes, of labels that are numbers, and of weights."""
    if not transform.tasks:
        raise ValueError("`transform` must have tasks, whose labels generated rows have. Received: tasks=()")
    numbers = [task.label_column for task in transform.tasks if task.num_classes is None]
    classes = [name for name in label_columns(transform.tasks) if name not in numbers]
    return classes, numbers, list(weight_columns(transform.tasks, transform.sample_weight))


def _without_suffix(name: str) -> str:
    return name.removesuffix(_IS_MISSING)


def _kinds(transform: FeatureTransform, numbers: Sequence[str]) -> dict[str, str]:
    """Of each column whether it is a category or a number."""
    others = [feature.name for feature in transform.specs if feature.generated_as is None]
    if others:
        raise ValueError(
            "`transform` must have Categorical and Numeric features with one value a row, which rows can be generated "
            f"of. Received others: {others}"
        )
    found: dict[str, str] = {}
    for feature in transform.specs:
        if found.get(feature.source) != CATEGORY:
            found[feature.source] = feature.generated_as or ""
    return {**found, **dict.fromkeys(numbers, NUMBER)}
