"""What a transform learns from the training table, and the arrays that it gives with it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence as SequenceABC
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo.features import _arrays, _ids, _numbers
from mtl_zoo.features._columns import BOOLEAN, EMPTY, FLOAT, INTEGER, SHOWN, Cells, Column, Lists, check_columns
from mtl_zoo.features.spec import Categorical, Encoded, Feature, Numeric, Sequence

_NUMBERS = (INTEGER, FLOAT, BOOLEAN)


@dataclasses.dataclass(frozen=True)
class ColumnType:
    """What a column held in the training table."""

    kind: str
    is_list: bool
    has_missing: bool

    def check(self, column: Column, feature: str) -> None:
        """Refuses a column that now holds something else."""
        same = column.kind == self.kind or (column.kind in _NUMBERS and self.kind in _NUMBERS)
        if column.kind != EMPTY and not (same and column.is_list == self.is_list):
            fitted = f"lists of {SHOWN[self.kind]}" if self.is_list else SHOWN[self.kind]
            raise ValueError(
                f"`{column.name}` must hold {fitted}, as in the table that feature {feature!r} was fitted on. "
                f"Received: {column.shown}, dtype {column.series.dtype}"
            )


@dataclasses.dataclass(frozen=True)
class Summary:
    """Distinct values of a feature's column in the training table, and rows without one; None where not counted."""

    distinct: int | None
    missing: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The state of a fitted transform. Vocabularies are by embedding table, the rest by column or feature name."""

    features: tuple[Feature, ...]
    columns: dict[str, ColumnType]
    vocabularies: dict[str, _ids.Vocabulary]
    moments: dict[str, _numbers.Moments]
    summaries: dict[str, Summary]

    def encode(self, frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, _ids.Unseen]]:
        """Arrays by feature name, and the values that were in no vocabulary."""
        columns = read_columns(self.features, frame)
        arrays: dict[str, np.ndarray] = {}
        unseen: dict[str, _ids.Unseen] = {}
        for feature in self.features:
            column = columns[feature.source]
            self.columns[feature.source].check(column, feature.name)
            if isinstance(feature, Numeric):
                arrays[feature.name] = _numbers.encode(feature, self.moments[feature.name], column)
            elif isinstance(feature, Encoded):
                arrays[feature.name] = _arrays.encode(feature, column)
            elif isinstance(feature, (Categorical, Sequence)):
                arrays[feature.name], new = self._encode_ids(feature, column)
                if new is not None:
                    unseen[feature.name] = new
        return arrays, unseen

    def _encode_ids(self, feature: _ids.IdFeature, column: Column) -> tuple[np.ndarray, _ids.Unseen | None]:
        length = feature.length if _ids.holds_lists(feature) else None
        return _ids.encode(feature, self.vocabularies[feature.table], column, length)


def read_columns(features: SequenceABC[Feature], frame: pd.DataFrame) -> dict[str, Column]:
    sources = dict.fromkeys(feature.source for feature in features)
    check_columns(frame, sources)
    return {name: Column(name, frame[name]) for name in sources}


def with_sizes(
    features: SequenceABC[Feature], vocabularies: dict[str, _ids.Vocabulary], lengths: dict[str, int | None]
) -> tuple[Feature, ...]:
    """The specs with what `fit` found out: `num_ids`, and the length of multi-hot cells."""
    sized = []
    for feature in features:
        if isinstance(feature, (Categorical, Sequence)):
            changes: dict[str, Any] = {"num_ids": vocabularies[feature.table].num_ids}
            if lengths.get(feature.name) is not None:
                changes["length"] = lengths[feature.name]
            feature = dataclasses.replace(feature, **changes)
        sized.append(feature)
    return tuple(sized)


def fit(features: SequenceABC[Feature], frame: pd.DataFrame) -> tuple[Fitted, dict[str, Column]]:
    """The state learned from `frame`, and its columns."""
    columns = read_columns(features, frame)
    for feature in features:
        if columns[feature.source].kind == EMPTY:
            raise ValueError(
                f"`{feature.source}` must hold a value to fit feature {feature.name!r}. Received: {len(frame)} rows, "
                "all missing"
            )
    id_features = [f for f in features if isinstance(f, (Categorical, Sequence))]
    readings = {f.name: _ids.read(f, columns[f.source]) for f in id_features}
    vocabularies = {}
    for table, group in itertools.groupby(sorted(id_features, key=lambda f: f.table), key=lambda f: f.table):
        sharing = list(group)
        vocabularies[table] = _ids.fit_vocabulary(sharing, [readings[f.name] for f in sharing])
    lengths = {f.name: _ids.fit_length(f, vocabularies[f.table], readings[f.name]) for f in id_features}
    moments = {f.name: _numbers.fit_moments(f, columns[f.source]) for f in features if isinstance(f, Numeric)}
    summaries = {f.name: _summary(f, columns[f.source], readings.get(f.name)) for f in features}
    for feature in features:
        if isinstance(feature, Encoded):
            _arrays.encode(feature, columns[feature.source])
    types = {
        name: ColumnType(column.kind, column.is_list, bool(column.series.isna().any()))
        for name, column in columns.items()
    }
    fitted = Fitted(with_sizes(features, vocabularies, lengths), types, vocabularies, moments, summaries)
    return fitted, columns


def _summary(feature: Feature, column: Column, reading: Cells | Lists | None) -> Summary:
    if isinstance(reading, Lists):
        filled = len(np.unique(reading.rows))
        return Summary(int((reading.cells.counts > 0).sum()), reading.num_rows - filled)
    if isinstance(reading, Cells):
        return Summary(int((reading.counts > 0).sum()), reading.missing)
    if isinstance(feature, Numeric):
        numbers = column.numbers()
        return Summary(len(pd.unique(numbers[~np.isnan(numbers)])), int(np.isnan(numbers).sum()))
    return Summary(None, int(column.series.isna().sum()))
