"""Dates and times become their parts: the hour, the day of the week, the month, the year, and how long ago."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features import _calendar
from mtl_zoo.features._calendar import DAY, SECOND
from mtl_zoo.features._columns import DATE, MISSING_INTEGER, Column
from mtl_zoo.features._states import ColumnType, State, Unseen, register_state
from mtl_zoo.features._times import UNITS, ZONED, is_date, read_times
from mtl_zoo.features.base import Choice, Feature, InferRules, Summary, register_feature
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID, Encoder, InputSpec

# How many values the parts that come again have.
PERIODS = {"month": 12, "day": 31, "weekday": 7, "hour": 24}
PARTS = ("trend", "elapsed", "year", *PERIODS)
# Parts that are numbers, whatever the encoding.
_NUMBERS = ("trend", "elapsed")


@register_state("datetimes")
@dataclasses.dataclass(frozen=True)
class DatetimeState(State):
    """What `fit` learned of dates, and the table of their time zone.

    Args:
        moments: (mean, 1 / std) by part that is a number; 0 in place of 1 / std where all dates gave the same.
        years: The first and the last year.
        has_missing: Whether any date of the training table was missing.
        zone: Its offsets, as they were known when the transform was fitted.
    """

    moments: dict[str, tuple[float, float]]
    years: tuple[int, int]
    has_missing: bool
    zone: _calendar.Zone

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return self.identity()

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> DatetimeState:
        return cls(
            {part: (float(mean), float(scale)) for part, (mean, scale) in config["moments"].items()},
            (int(config["years"][0]), int(config["years"][1])),
            bool(config["has_missing"]),
            _calendar.Zone(tuple(config["zone"]["starts"]), tuple(config["zone"]["offsets"])),
        )

    def identity(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@register_feature("datetime")
@dataclasses.dataclass(frozen=True)
class Datetime(Feature):
    """A date or a time: its place in the year, the week and the day, and how long ago it was.

    With t in days since 1970, and mean and std those of the training rows that have a date:

        trend    (t - mean) / std
        elapsed  e = sign(d) ln(1 + |d|) of the days d from `since` to t, standardised
        year     the calendar year, standardised
        others   sin and cos of 2 pi part / period, counted from 0: month, day (of the month), weekday, hour

    With `encoding="embedded"` the year and the others are rows of tables, of the years of the training table.

    A missing date (NaT, None, '') is zeros, and row 0 of each table. With `"cyclic"`, if any date was missing in the
    training table, a second input, `<name>.missing`, is 1 where one is. What was the same in all training rows is 0.

    Args:
        name: Names the feature and the model's input: float32 of shape (batch, numbers), or with `"embedded"` int32 of
            shape (batch, tables), beside the float32 input `<name>.numbers` if there are trend or elapsed.
        parts: Which of `"trend"`, `"elapsed"`, `"year"`, `"month"`, `"day"`, `"weekday"` and `"hour"`.
        column: Its column in a table: datetime64 of any unit, Python's dates and datetimes, Arrow's timestamps and
            dates, epoch numbers (with `unit`), or strings (with `format`). Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        since: The date that `"elapsed"` counts from: an ISO text or a date, told in `timezone` if it has no zone.
        timezone: The zone in which the parts are told, by its IANA name such as `"Europe/Rome"`. Times without a zone
            are local times of it; one that clocks were put forward over is refused, and of one that comes twice the
            first is taken. Its rules from 1900 to 2100 are kept in the transform. Default: None, UTC.
        format: Of strings, as `pandas.to_datetime` takes it: `"%Y-%m-%d"`, `"ISO8601"`. No format is guessed.
        unit: Of epoch numbers: `"D"`, `"h"`, `"m"`, `"s"`, `"ms"`, `"us"` or `"ns"`. They count in UTC.
        encoding: `"cyclic"` or `"embedded"`.
        dim: Width of each table, with `"embedded"`.
        indicator: Whether there is the input `<name>.missing`. Set by `fit`.
        years: The years that have a row. Set by `fit`.

    An exported model takes int64 microseconds since 1970 in UTC, -2**63 where missing, whatever the table held: its
    graph parses no text. Dates outside the years 1 to 9999 are refused in tables, and missing to an exported model.

    Raises:
        ValueError: A part, zone or unit is not known; `since` and `"elapsed"` come without each other; a cell cannot be
            read, named with its row.

    Example:

    >>> from mtl_zoo import Datetime, FeatureTransform
    >>> when = Datetime("when", parts=("weekday",), format="%Y-%m-%d", encoding="embedded")
    >>> transform = FeatureTransform(when).fit({"when": ["2024-01-01", "2024-01-07"]})
    >>> transform.encode({"when": ["2024-02-06", None]})["when"].tolist()  # a Tuesday
    [[3], [0]]

    Reference: Kazemi et al., arXiv:1907.05321, for time as a vector of a trend and of periods.
    """

    parts: tuple[str, ...] = dataclasses.field(default=("trend", "month", "weekday", "hour"), kw_only=True)
    since: str | None = dataclasses.field(default=None, kw_only=True)
    timezone: str | None = dataclasses.field(default=None, kw_only=True)
    format: str | None = dataclasses.field(default=None, kw_only=True)
    unit: str | None = dataclasses.field(default=None, kw_only=True)
    encoding: str = dataclasses.field(default="cyclic", kw_only=True)
    dim: int = dataclasses.field(default=4, kw_only=True)
    indicator: bool = dataclasses.field(default=False, kw_only=True)
    years: tuple[int, int] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = (self.parts,) if isinstance(self.parts, str) else tuple(self.parts)
        object.__setattr__(self, "parts", parts)
        for part in parts:
            check.check_choice("parts", part, PARTS)
        if not parts or check.duplicates(parts):
            raise ValueError(f"`parts` must hold different parts, at least one. Received: parts={parts!r}")
        check.check_choice("encoding", self.encoding, ("cyclic", "embedded"))
        check.check_choice("unit", self.unit, (None, *UNITS))
        check.check_int("dim", self.dim, maximum=check.MAX_UNITS)
        if self.is_embedded and not self._tables:
            raise ValueError(
                f"`parts` must hold one that has a table, with encoding='embedded'. Received: parts={parts!r}"
            )
        if self.format is not None and (not isinstance(self.format, str) or not self.format):
            raise ValueError(f"`format` must be such as '%Y-%m-%d'. Received: format={self.format!r}")
        if self.timezone is not None:
            _calendar.zone_named(self.timezone)
        if (self.since is None) == ("elapsed" in parts):
            raise ValueError(f"`since` goes with the part 'elapsed'. Received: since={self.since!r}, parts={parts!r}")
        if self.since is not None:
            object.__setattr__(self, "since", _as_iso(self.since))
        if self.years is not None:
            object.__setattr__(self, "years", (int(self.years[0]), int(self.years[1])))

    @property
    def is_embedded(self) -> bool:
        return self.encoding == "embedded"

    @property
    def _tables(self) -> list[str]:
        """Parts that are rows of tables, with `"embedded"`."""
        return [part for part in self.parts if part not in _NUMBERS]

    @property
    def _numbers(self) -> list[str]:
        """Parts that are numbers."""
        return [part for part in self.parts if part in _NUMBERS or not self.is_embedded]

    @property
    def shape(self) -> tuple[int | None, ...]:
        if self.is_embedded:
            return (len(self._tables),)
        return (sum(2 if part in PERIODS else 1 for part in self.parts),)

    @property
    def rule(self) -> str:
        zone = "" if self.timezone is None else f", told in {self.timezone}"
        return f"{', '.join(self.parts)}; {self.encoding}{zone}{', with an indicator' if self.indicator else ''}"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("years",) if self.is_embedded and "year" in self.parts and self.years is None else ()

    def input_specs(self) -> dict[str, InputSpec]:
        if not self.is_embedded:
            specs = {self.name: InputSpec(self.shape, "float32")}
            return (
                {**specs, f"{self.name}.missing": InputSpec((), "float32", says_missing=True)}
                if self.indicator
                else specs
            )
        specs = {self.name: InputSpec(self.shape, "int32")}
        numbers = len(self._numbers)
        return {**specs, f"{self.name}.numbers": InputSpec((numbers,), "float32")} if numbers else specs

    def embed(self) -> Encoder:
        from mtl_zoo.layers.datetime_encoder import DatetimeEncoder
        from mtl_zoo.layers.vector_encoder import VectorEncoder

        name = f"{self.name}_encoder"
        if not self.is_embedded:
            return Encoder(VectorEncoder(name=name), self.name)
        first, last = self.years or (0, 0)
        sizes = [FIRST_ID + PERIODS.get(part, last - first + 1) for part in self._tables]
        return Encoder(DatetimeEncoder(sizes, self.dim, name=name), self.name)

    @property
    def share_key(self) -> tuple[str, str]:
        return ("encoder", self.name)

    # From a table.

    @property
    def state_key(self) -> tuple[str, str]:
        return (DatetimeState.family, self.name)

    @property
    def _zone(self) -> _calendar.Zone:
        return _calendar.UTC if self.timezone is None else _calendar.zone_named(self.timezone)

    def read(self, column: Column) -> np.ndarray:
        return read_times(column, self._zone, self.format, self.unit)

    def fit(self, sharing: SequenceABC[tuple[Any, np.ndarray]]) -> DatetimeState:
        """Moments of the dates that are there, in float64, and their years."""
        ((_, micros),) = sharing
        there = micros[micros != MISSING_INTEGER]
        if not len(there):
            raise ValueError(
                f"`{self.source}` must hold a date to fit feature {self.name!r}. Received: {len(micros)} rows, all "
                "missing"
            )
        zone = self._zone
        found = self._values(there, zone, _NUMPY)
        moments: dict[str, tuple[float, float]] = {}
        for part in ("trend", "elapsed", "year"):
            if part in self.parts:
                values = np.asarray(found[part], np.float64)
                is_constant = values.min() == values.max() or values.std() == 0
                moments[part] = (float(values.mean()), 0.0 if is_constant else float(1.0 / values.std()))
        years = (int(found["year"].min()), int(found["year"].max()))
        return DatetimeState(moments, years, len(there) < len(micros), zone)

    def sized(self, state: DatetimeState, reading: np.ndarray) -> Feature:
        return self.resized(state, {})

    def resized(self, state: DatetimeState, sizes: dict[str, Any]) -> Feature:
        years = state.years if self.is_embedded and "year" in self.parts else None
        return dataclasses.replace(self, indicator=state.has_missing and not self.is_embedded, years=years)

    def summarize(self, reading: np.ndarray) -> Summary:
        there = reading[reading != MISSING_INTEGER]
        return Summary(len(np.unique(there)), len(reading) - len(there))

    def encode(
        self, state: DatetimeState, column: Column, fitted: ColumnType
    ) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """float32 numbers, or int32 ids beside them."""
        micros = read_times(column, state.zone, self.format, self.unit)
        return self._arrays(state, micros, micros != MISSING_INTEGER, _NUMPY), None

    def encode_in_graph(self, lookup: DatetimeState, raw: Any) -> dict[str, Any]:
        there = (raw >= _calendar.FIRST) & (raw <= _calendar.LAST)
        return self._arrays(lookup, raw, there, _tensorflow())

    def _values(self, micros: Any, zone: _calendar.Zone, xp: Any) -> dict[str, Any]:
        """Each part of dates as it is, before it is scaled."""
        days = xp.cast(micros, "float64") / float(DAY * SECOND)
        starts, offsets = xp.constant(zone.starts), xp.constant(zone.offsets)
        seconds = micros // SECOND
        local = seconds + xp.take(offsets, xp.searchsorted(starts, seconds))
        found = {"trend": days, **_calendar.calendar_parts(local)}
        if self.since is not None:
            apart = days - _days_of(self.since, zone)
            found["elapsed"] = xp.sign(apart) * xp.log1p(xp.abs(apart))
        return found

    def _arrays(self, state: DatetimeState, micros: Any, there: Any, xp: Any) -> dict[str, Any]:
        """By input name; `xp` is NumPy's functions, or TensorFlow's."""
        found = self._values(xp.where(there, micros, xp.zeros_like(micros)), state.zone, xp)
        numbers = []
        for part in self._numbers:
            value = xp.cast(found[part], "float64")
            if part in PERIODS:
                angle = value * (2 * math.pi / PERIODS[part])
                numbers += [xp.sin(angle), xp.cos(angle)]
            else:
                mean, scale = state.moments[part]
                numbers.append((value - mean) * scale)
        numbers = [xp.cast(xp.where(there, number, xp.zeros_like(number)), "float32") for number in numbers]
        if not self.is_embedded:
            missing = {f"{self.name}.missing": 1 - xp.cast(there, "float32")} if self.indicator else {}
            return {self.name: xp.stack(numbers, axis=1), **missing}
        ids = []
        for part in self._tables:
            first, last = (0, PERIODS[part] - 1) if part in PERIODS else state.years
            value = found[part]
            known = xp.where((value >= first) & (value <= last), value + (FIRST_ID - first), UNKNOWN_ID)
            ids.append(xp.cast(xp.where(there, known, MISSING_ID), "int32"))
        beside = {f"{self.name}.numbers": xp.stack(numbers, axis=1)} if numbers else {}
        return {self.name: xp.stack(ids, axis=1), **beside}

    def raw_form(self) -> InputSpec:
        how = [("timezone", self.timezone), ("format", self.format), ("unit", self.unit)]
        shown = "".join(f", {name}={value!r}" for name, value in how if value is not None)
        return InputSpec((), "int64", meaning=f"microseconds since 1970 in UTC{shown}")

    def raw_array(self, column: Column) -> np.ndarray:
        return self.read(column)

    def text_kinds(self, kind: str) -> tuple[str, ...] | None:
        return (DATE, ZONED) if kind == DATE else None

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        if not is_date(column):
            return None
        feature = cls(name, column=None if name == column.name else column.name)
        micros = feature.read(column)
        summary = feature.summarize(micros)
        distinct, missing = summary.distinct or 0, summary.missing or 0
        if distinct == 1 and not missing:
            return Choice(None, f"constant: {column.series.iloc[0]}", distinct, missing)
        if not (micros[micros != MISSING_INTEGER] % (DAY * SECOND)).any():
            feature = dataclasses.replace(feature, parts=("trend", "month", "weekday"))
        return Choice(feature, f"dates, {distinct} distinct, as {', '.join(feature.parts)}", distinct, missing)

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        moments = ("2024-03-31T00:59:59", "1999-12-31T23:30:00", "2024-02-29T12:00:00", "2024-10-27T00:30:00")
        stamps = [datetime.datetime.fromisoformat(text) for text in moments]
        texts = ["29.02.2024", "01.01.1970", None, "31.12.1969", "29.02.2024", "28.02.1900"]
        epochs = [0, 1_700_000_000, -86_400, 951_782_399, 1_700_000_000, 5]
        return [
            (cls("when", parts=PARTS, since="2000-01-01"), [*stamps, None, stamps[0]]),
            (cls("when", parts=("weekday", "hour"), timezone="Europe/Rome"), [*stamps, *stamps[:2]]),
            (cls("born", parts=PARTS, since="1950-06-01", format="%d.%m.%Y", encoding="embedded"), texts),
            (cls("at", parts=("year", "day"), unit="s", timezone="Asia/Kolkata", encoding="embedded"), epochs),
        ]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        years = None if self.years is None else list(self.years)
        return {**super().get_config(), "parts": list(self.parts), "years": years}


def _as_iso(since: Any) -> str:
    try:
        moment = since if isinstance(since, datetime.date) else datetime.datetime.fromisoformat(since)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`since` must be a date, such as '2020-01-31'. Received: since={since!r}") from error
    return moment.isoformat()


def _days_of(since: str, zone: _calendar.Zone) -> float:
    moment = datetime.datetime.fromisoformat(since)
    if moment.tzinfo is not None:
        return moment.timestamp() / DAY
    seconds = int(moment.replace(tzinfo=datetime.UTC).timestamp())
    return float(zone.to_utc(np.array([seconds]))[0][0]) / DAY


_NUMPY = SimpleNamespace(
    **{name: getattr(np, name) for name in ("sin", "cos", "sign", "log1p", "abs", "where", "stack", "take")},
    zeros_like=np.zeros_like,
    cast=lambda x, dtype: np.asarray(x).astype(dtype),
    constant=lambda values: np.array(values, np.int64),
    searchsorted=lambda starts, x: np.searchsorted(starts, x, side="right"),
)


def _tensorflow() -> SimpleNamespace:
    import tensorflow as tf

    def where(condition: Any, x: Any, y: Any) -> Any:
        return tf.where(condition, x, tf.cast(y, x.dtype))

    return SimpleNamespace(
        **{name: getattr(tf, name) for name in ("sin", "cos", "sign", "abs", "stack", "zeros_like", "cast")},
        log1p=tf.math.log1p,
        where=where,
        take=tf.gather,
        constant=lambda values: tf.constant(np.array(values, np.int64)),
        searchsorted=lambda starts, x: tf.searchsorted(starts, x, side="right"),
    )
