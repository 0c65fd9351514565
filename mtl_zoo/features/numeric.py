"""Numbers become scaled numbers, or the ids of buckets with equal shares of the training rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features import _separation
from mtl_zoo.features._columns import FLOAT, INTEGER, MISSING_INTEGER, STRING, Column, refuse_values
from mtl_zoo.features._states import ColumnType, State, Unseen, register_state
from mtl_zoo.features.base import (
    FIRST_ID,
    MISSING_ID,
    Choice,
    Feature,
    InputSpec,
    Number,
    Rows,
    Summary,
    register_feature,
)


@register_state("moments")
@dataclasses.dataclass(frozen=True)
class Moments(State):
    """What `fit` learned of a number: what replaces missing ones, and its scale or bucket boundaries."""

    fill: float | None = None
    mean: float = 0.0
    std: float = 1.0
    boundaries: tuple[float, ...] = ()

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return self.identity()

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Moments:
        return cls(**{**config, "boundaries": tuple(config["boundaries"])})

    def identity(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@register_feature("numeric")
@dataclasses.dataclass(frozen=True)
class Numeric(Feature):
    """A number: age, price, a count.

    Args:
        name: Names the feature and the model's input: float32 of shape (batch,), or int32 ids with `"quantile"`.
        column: Its column in a table. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        normalization: `"standardize"`: (x - mean) / std of the training table. `"log"`: sign(x) ln(1 + |x|), then
            standardised. `"quantile"`: the index of one of `buckets` intervals with equal shares of the training rows,
            embedded like a categorical. None: as it stands.
        missing: What NaN and infinities become: None refuses them, `"mean"` or `"median"` of the training table, or a
            number. With `"quantile"`, `"bucket"` gives them an id of their own.
        buckets: Number of intervals, with `"quantile"`.
        dim: Width of the embedding, with `"quantile"`.

    Example:

    >>> from mtl_zoo import Numeric
    >>> Numeric("price", normalization="log", missing="median").missing
    'median'
    """

    normalization: str | None = dataclasses.field(default="standardize", kw_only=True)
    missing: str | float | None = dataclasses.field(default=None, kw_only=True)
    buckets: int = dataclasses.field(default=10, kw_only=True)
    dim: int = dataclasses.field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_choice("normalization", self.normalization, ("standardize", "log", "quantile", None))
        check.check_int("buckets", self.buckets, minimum=2)
        check.check_int("dim", self.dim)
        if isinstance(self.missing, str):
            known = ("mean", "median", "bucket") if self.is_bucketed else ("mean", "median")
            check.check_choice("missing", self.missing, known)
        elif self.missing is not None:
            check.check_number("missing", self.missing)

    @property
    def is_bucketed(self) -> bool:
        return self.normalization == "quantile"

    @property
    def num_ids(self) -> int:
        """Rows of the embedding table, with `"quantile"`."""
        return FIRST_ID + self.buckets

    @property
    def rule(self) -> str:
        return f"normalization={self.normalization!r}, missing={self.missing!r}"

    # In a model.

    def input_specs(self) -> dict[str, InputSpec]:
        return {self.name: InputSpec((), "int32" if self.is_bucketed else "float32")}

    def embed(self) -> Rows | Number:
        # No other feature shares a bucketed number's table, whatever its key.
        return Rows(f"number {self.name}", self.num_ids, self.dim) if self.is_bucketed else Number()

    # From a table.

    @property
    def state_key(self) -> tuple[str, str]:
        return (Moments.family, self.name)

    def fit(self, sharing: SequenceABC[tuple[Any, Column]]) -> Moments:
        """Moments of the finite values of the column, in float64."""
        ((_, column),) = sharing
        numbers = self._checked(column)
        observed = numbers[np.isfinite(numbers)]
        if not len(observed):
            raise ValueError(
                f"`{column.name}` must hold a finite number to fit feature {self.name!r}. "
                f"Received: {len(numbers)} rows, none finite"
            )
        fill = self._fill(observed)
        if self.is_bucketed:
            shares = np.linspace(0, 1, self.buckets + 1)[1:-1]
            return Moments(fill, boundaries=tuple(np.unique(np.quantile(observed, shares)).tolist()))
        if self.normalization is None:
            return Moments(fill)
        scaled = _log(observed) if self.normalization == "log" else observed
        if scaled.min() == scaled.max():
            # Its mean may be rounded, and its std is then no 0.
            return Moments(fill, float(scaled[0]), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(scaled.mean()), float(scaled.std())
        if not np.isfinite(mean) or not np.isfinite(std):
            largest = np.abs(observed) == np.abs(observed).max()
            refuse_values(column.name, "must hold numbers whose variance is finite", largest, observed)
        return Moments(fill, mean, std or 1.0)

    def _fill(self, observed: np.ndarray) -> float | None:
        """What replaces missing numbers; None where they are refused or have a bucket of their own."""
        if self.missing == "mean":
            return float(observed.mean())
        if self.missing == "median":
            return float(np.median(observed))
        return None if isinstance(self.missing, str) or self.missing is None else float(self.missing)

    def _checked(self, column: Column) -> np.ndarray:
        numbers = column.numbers()
        if self.missing is None:
            advice = f"Give {self.name!r} a policy, for example Numeric(..., missing='mean')"
            refuse_values(
                column.name, "must hold finite numbers, since `missing` is None", ~np.isfinite(numbers), numbers, advice
            )
        return numbers

    def summarize(self, reading: Column) -> Summary:
        numbers = reading.numbers()
        return Summary(len(pd.unique(numbers[~np.isnan(numbers)])), int(np.isnan(numbers).sum()))

    def encode(self, state: Moments, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """float32 (n,), or int32 ids of buckets."""
        numbers = self._checked(column)
        finite = np.isfinite(numbers)
        filled = numbers if state.fill is None else np.where(finite, numbers, state.fill)
        if self.is_bucketed:
            ids = np.searchsorted(np.array(state.boundaries), filled, side="right") + FIRST_ID
            return {self.name: np.where(finite | (state.fill is not None), ids, MISSING_ID).astype(np.int32)}, None
        scaled = _log(filled) if self.normalization == "log" else filled
        with np.errstate(over="ignore"):
            result = ((scaled - state.mean) / state.std).astype(np.float32)
        refuse_values(column.name, "must hold numbers that fit in 32 bits once scaled", ~np.isfinite(result), numbers)
        return {self.name: result}, None

    def encode_in_graph(self, lookup: Moments, raw: Any) -> dict[str, Any]:
        import tensorflow as tf

        numbers = tf.cast(raw, tf.float64)
        if raw.dtype == tf.int64:
            numbers = tf.where(raw == MISSING_INTEGER, tf.constant(np.nan, tf.float64), numbers)
        finite = tf.math.is_finite(numbers)
        if lookup.fill is not None:
            numbers = tf.where(finite, numbers, tf.constant(lookup.fill, tf.float64))
        if self.is_bucketed:
            boundaries = tf.constant(lookup.boundaries, tf.float64)
            ids = tf.searchsorted(boundaries, numbers, side="right") + FIRST_ID
            return {self.name: ids if lookup.fill is not None else tf.where(finite, ids, MISSING_ID)}
        if self.normalization == "log":
            numbers = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
        return {self.name: tf.cast((numbers - lookup.mean) / lookup.std, tf.float32)}

    def text_kinds(self, kind: str) -> tuple[str, ...] | None:
        return (FLOAT,) if kind == INTEGER else None

    def leak_auc(self, column: Column, rows: np.ndarray, label: np.ndarray) -> float | None:
        return None if column.kind == STRING or column.is_list else _separation.number_auc(column, rows, label)

    @classmethod
    def infer(cls, column: Column, name: str, dim: int) -> Choice | None:
        if column.is_list:
            return None
        numbers = column.numbers()
        distinct = len(pd.unique(numbers[~np.isnan(numbers)]))
        missing = "mean" if not np.isfinite(numbers).all() else None
        rule = f"numbers, {distinct} distinct" + ("; missing ones become the mean" if missing else "")
        source = None if name == column.name else column.name
        return Choice(cls(name, column=source, missing=missing), rule, distinct, int(np.isnan(numbers).sum()))


def _log(numbers: np.ndarray) -> np.ndarray:
    return np.sign(numbers) * np.log1p(np.abs(numbers))
