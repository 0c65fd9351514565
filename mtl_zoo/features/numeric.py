"""Numbers become scaled numbers, vectors of these, or the ids of buckets with equal shares of the training rows."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features import _separation
from mtl_zoo.features._columns import DATE, FLOAT, INTEGER, MISSING_INTEGER, STRING, Column, refuse_values
from mtl_zoo.features._growth import Growth, GrowthRules
from mtl_zoo.features._states import ColumnType, State, Unseen, register_state
from mtl_zoo.features.base import Choice, Feature, InferRules, Summary, register_feature
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, InputSpec, Number, Rows

logger = logging.getLogger(__name__)

ENCODINGS = (None, "piecewise_linear", "periodic")
# Distinct whole numbers above which they may be ids.
_MANY = 1000


@register_state("moments")
@dataclasses.dataclass(frozen=True)
class Moments(State):
    """What `fit` learned of a number: what replaces missing ones, and its scale or bucket boundaries."""

    fill: float | None = None
    mean: float = 0.0
    std: float = 1.0
    boundaries: tuple[float, ...] = ()
    # Whether any number of the training table was missing.
    has_missing: bool = False

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return self.identity()

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Moments:
        return cls(**{**config, "boundaries": tuple(config["boundaries"])})

    def moved_from(self, before: State) -> str:
        # Another scale changes what a model sees, and no id.
        seen = [(s.boundaries, s.has_missing) if isinstance(s, Moments) else None for s in (before, self)]
        return "" if seen[0] == seen[1] else "the boundaries of its buckets, or whether numbers are missing, differ"

    def identity(self) -> dict[str, Any]:
        config = dataclasses.asdict(self)
        if not self.has_missing:
            del config["has_missing"]  # what 0.1.0 wrote, so that hashes stay
        return config


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
        missing: What NaN and infinities become. `"auto"`: the mean of the training table, and if any number was missing
            there a second input, `<name>.missing`, is 1 where one is; with `"quantile"` it means `"bucket"`. `"mean"`
            or `"median"` of the training table, or a number. `"bucket"`, with `"quantile"`: an id of their own. None
            refuses them in tables; a graph, which cannot refuse, takes the mean (0 without a normalization).
        buckets: Number of intervals, with `"quantile"`.
        dim: Width of the vector, with `"quantile"` or an `encoding`.
        encoding: How the normalised number enters a model. None: as it is, one number. `"piecewise_linear"`: as a
            vector that changes linearly within each of `pieces` intervals with equal shares of the training rows
            (`mtl_zoo.layers.PiecewiseLinearEncoder`), so that a model can bend at each of their boundaries, as trees
            do. `"periodic"`: as a vector of waves with trained frequencies (`mtl_zoo.layers.PeriodicEncoder`).
        pieces: The most intervals, with `"piecewise_linear"`. A number with fewer distinct values has a boundary at
            each of them.
        frequencies: Number of waves, with `"periodic"`.
        frequency_scale: Standard deviation of the frequencies at the start, with `"periodic"`, in periods a unit of the
            normalised number.
        indicator: Whether there is the second input. Set by `fit`.
        boundaries: Of the pieces, in units of the normalised number, with `"piecewise_linear"`. Set by `fit`.

    Raises:
        ValueError: An option is none of these; `encoding` comes with `"quantile"`, which has a vector of its own.

    Example:

    >>> from mtl_zoo import FeatureTransform, Numeric
    >>> transform = FeatureTransform(Numeric("rooms", normalization=None, encoding="piecewise_linear", pieces=2))
    >>> transform.fit({"rooms": [1, 2, 2, 3, 9]}).features[0].boundaries
    (1.0, 2.0, 9.0)

    Reference: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
    NeurIPS 2022, arXiv:2203.05556, for the encodings.
    """

    normalization: str | None = dataclasses.field(default="standardize", kw_only=True)
    missing: str | float | None = dataclasses.field(default="auto", kw_only=True)
    buckets: int = dataclasses.field(default=10, kw_only=True)
    dim: int = dataclasses.field(default=16, kw_only=True)
    encoding: str | None = dataclasses.field(default=None, kw_only=True)
    pieces: int = dataclasses.field(default=32, kw_only=True)
    frequencies: int = dataclasses.field(default=16, kw_only=True)
    frequency_scale: float = dataclasses.field(default=0.1, kw_only=True)
    indicator: bool = dataclasses.field(default=False, kw_only=True)
    boundaries: tuple[float, ...] | None = dataclasses.field(default=None, kw_only=True)

    generated_as: ClassVar[str] = "number"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_choice("normalization", self.normalization, ("standardize", "log", "quantile", None))
        check.check_int("buckets", self.buckets, minimum=2)
        check.check_int("dim", self.dim)
        check.check_choice("encoding", self.encoding, ENCODINGS)
        if self.encoding is not None and self.is_bucketed:
            raise ValueError(
                "`encoding` must be None with normalization='quantile', which has a vector for each interval. "
                f"Received: encoding={self.encoding!r}"
            )
        check.check_int("pieces", self.pieces, maximum=check.MAX_UNITS)
        check.check_int("frequencies", self.frequencies, maximum=check.MAX_UNITS)
        check.check_number("frequency_scale", self.frequency_scale, above=0)
        if self.boundaries is not None:
            object.__setattr__(self, "boundaries", tuple(float(one) for one in self.boundaries))
        if isinstance(self.missing, str):
            known = ("auto", "mean", "median", *(("bucket",) if self.is_bucketed else ()))
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
        shown = f"{self.missing!r}, with an indicator" if self.indicator else repr(self.missing)
        encoding = "" if self.encoding is None else f", encoding={self.encoding!r}"
        return f"normalization={self.normalization!r}, missing={shown}{encoding}"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("boundaries",) if self.encoding == "piecewise_linear" and self.boundaries is None else ()

    def input_specs(self) -> dict[str, InputSpec]:
        specs = {self.name: InputSpec((), "int32" if self.is_bucketed else "float32")}
        return {**specs, self._indicator_name: InputSpec((), "float32", says_missing=True)} if self.indicator else specs

    @property
    def _indicator_name(self) -> str:
        return f"{self.name}.missing"

    def embed(self) -> Rows | Number:
        if self.is_bucketed:
            # No other feature shares a bucketed number's table, whatever its key.
            return Rows(f"number {self.name}", self.num_ids, self.dim)
        if self.encoding == "piecewise_linear":
            make = functools.partial(_piecewise_linear, dim=self.dim)
            return Number(f"piecewise_linear_{self.dim}", make, self.dim, self.boundaries or ())
        if self.encoding == "periodic":
            options: dict[str, Any] = {
                "dim": self.dim,
                "frequencies": self.frequencies,
                "scale": float(self.frequency_scale),
            }
            group = f"periodic_{self.dim}_{self.frequencies}_{options['scale']:g}".replace(".", "_")
            return Number(group, functools.partial(_periodic, **options), self.dim)
        return Number()

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
        infinite = int(np.isinf(numbers).sum())
        if infinite:
            logger.warning(
                "`%s`: %d of %d numbers are infinite and count as missing", column.name, infinite, len(numbers)
            )
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._moments(observed, has_missing=len(observed) < len(numbers))
        numbers_found = [found.mean, found.std, *found.boundaries, *([] if found.fill is None else [found.fill])]
        if not np.isfinite(numbers_found).all():
            largest = np.abs(observed) == np.abs(observed).max()
            refuse_values(column.name, "must hold numbers whose variance is finite", largest, observed)
        return found

    def extended(
        self, state: Moments, sharing: SequenceABC[tuple[Any, Column]], rules: GrowthRules
    ) -> tuple[Moments, Growth]:
        """Moments stay, or are those of the new table if `rules` ask for it; boundaries always stay, with theirs."""
        numbers = np.concatenate([np.zeros(0), *(self._checked(column) for _, column in sharing)])
        observed = numbers[np.isfinite(numbers)]
        if rules.numbers == "keep" or state.boundaries or not len(observed):
            return state, Growth()
        # Whether there is the input that says what is missing stays as the model knows it.
        return self._moments(observed, state.has_missing), Growth("refitted")

    def _moments(self, observed: np.ndarray, has_missing: bool) -> Moments:
        fill = self._fill(observed)
        if self.is_bucketed:
            shares = np.linspace(0, 1, self.buckets + 1)[1:-1]
            boundaries = tuple(np.unique(np.quantile(observed, shares)).tolist())
            return Moments(fill, boundaries=boundaries, has_missing=has_missing)
        scaled = _log(observed) if self.normalization == "log" else observed
        mean, std = 0.0, 1.0
        if self.normalization is not None:
            # Of equal numbers, the mean may be rounded, and the std is then no 0.
            is_constant = scaled.min() == scaled.max()
            mean, std = (float(scaled[0]), 1.0) if is_constant else (float(scaled.mean()), float(scaled.std()) or 1.0)
        boundaries = self._boundaries((scaled - mean) / std) if self.encoding == "piecewise_linear" else ()
        return Moments(fill, mean, std, boundaries, has_missing=has_missing)

    def _boundaries(self, normalised: np.ndarray) -> tuple[float, ...]:
        """Those of pieces with equal shares of the rows, or all distinct values if they are that few."""
        numbers = normalised.astype(np.float32)
        distinct = np.unique(numbers)
        if len(distinct) > self.pieces + 1:
            shares = np.linspace(0, 1, self.pieces + 1)
            distinct = np.unique(np.quantile(numbers, shares, method="closest_observation"))
        # Numbers that are nearer to each other than a piece can be are one boundary.
        distinct = distinct[np.append(True, np.diff(distinct) >= np.finfo(np.float32).tiny)]
        if len(distinct) == 1:
            distinct = np.append(distinct, distinct + np.maximum(1, np.abs(distinct)))
        return tuple(distinct.tolist())

    def sized(self, state: Moments, reading: Column) -> Feature:
        return self.resized(state, {})

    def resized(self, state: Moments, sizes: dict[str, Any]) -> Feature:
        indicator = self.missing == "auto" and not self.is_bucketed and state.has_missing
        boundaries = state.boundaries if self.encoding == "piecewise_linear" else None
        return dataclasses.replace(self, indicator=indicator, boundaries=boundaries)

    def _fill(self, observed: np.ndarray) -> float | None:
        """What replaces missing numbers; None where they are refused or have a bucket of their own."""
        if self.missing == "mean" or (self.missing == "auto" and not self.is_bucketed):
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
        finite = np.isfinite(numbers)
        return Summary(len(pd.unique(numbers[finite])), int((~finite).sum()))

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
        indicator = {self._indicator_name: (~finite).astype(np.float32)} if self.indicator else {}
        return {self.name: result, **indicator}, None

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
        scaled = tf.cast((numbers - lookup.mean) / lookup.std, tf.float32)
        # What `encode` refuses counts as the mean, which is 0 once scaled: a score must never be NaN.
        indicator = {self._indicator_name: tf.cast(~finite, tf.float32)} if self.indicator else {}
        return {self.name: tf.where(tf.math.is_finite(scaled), scaled, tf.zeros_like(scaled)), **indicator}

    def raw_form(self) -> InputSpec:
        # Whole numbers in the training table may have fractions later.
        return InputSpec((), "float64")

    def raw_array(self, column: Column) -> np.ndarray:
        return column.numbers()

    def text_kinds(self, kind: str) -> tuple[str, ...] | None:
        return (FLOAT,) if kind == INTEGER else None

    def leak_auc(self, column: Column, rows: np.ndarray, label: np.ndarray) -> float | None:
        return None if column.kind == STRING or column.is_list else _separation.number_auc(column, rows, label)

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        if column.is_list or column.kind == DATE:
            return None
        numbers = column.numbers()
        finite = np.isfinite(numbers)
        distinct = len(pd.unique(numbers[finite]))
        is_whole = bool((numbers[finite] == np.floor(numbers[finite])).all())
        rule = f"{'whole numbers' if is_whole else 'numbers'}, {distinct} distinct"
        if not finite.all():
            rule += "; missing ones become the mean, and an indicator says which"
        source = None if name == column.name else column.name
        warning = ""
        if is_whole and distinct > max(rules.threshold, _MANY):
            warning = (
                f"holds whole numbers, {distinct:,} distinct, and becomes a Numeric. If they are ids, their order "
                f"means nothing: say so with categorical=[{column.name!r}], or with numeric= if they are not."
            )
        feature = cls(name, column=source, encoding=rules.encoding, dim=rules.dim)
        return Choice(feature, rule, distinct, int((~finite).sum()), warning)

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        whole, holes = [3, 0, -2, 5, 5, 40], [0.5, None, -0.0, 1e6, 2.5, 2.5]
        return [
            (cls("age"), whole),
            (cls("price"), holes),
            (cls("price", normalization="log", missing="median"), holes),
            (cls("price", normalization=None, missing=0.0), holes),
            (cls("price", normalization="quantile", buckets=3, dim=4), holes),
            (cls("age", encoding="piecewise_linear", pieces=3, dim=4), whole),
            (cls("price", normalization="log", encoding="piecewise_linear", dim=4), holes),
            (cls("price", encoding="periodic", frequencies=3, dim=4), holes),
        ]

    @classmethod
    def asked_for(cls, column: Column, name: str, source: str | None, rules: InferRules) -> Feature:
        """What `infer(numeric=[...])` makes of a column."""
        return cls(name, column=source, encoding=rules.encoding, dim=rules.dim)

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("encoding", "pieces", "frequencies", "frequency_scale", "indicator", "boundaries"):
            if config[name] == usual[name]:
                del config[name]  # what 0.1.0 wrote, so that hashes stay
        return config


def _log(numbers: np.ndarray) -> np.ndarray:
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def _piecewise_linear(requests: SequenceABC[Number], *, dim: int, **options: Any) -> Any:
    from mtl_zoo.layers.piecewise_linear_encoder import PiecewiseLinearEncoder

    return PiecewiseLinearEncoder([request.boundaries for request in requests], dim, **options)


def _periodic(requests: SequenceABC[Number], **options: Any) -> Any:
    from mtl_zoo.layers.periodic_encoder import PeriodicEncoder

    return PeriodicEncoder(len(requests), **options)
