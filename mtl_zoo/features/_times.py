"""Columns of dates and times, in any of their forms, as microseconds since 1970 in UTC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mtl_zoo.features import _calendar
from mtl_zoo.features._columns import DATE, EMPTY, FLOAT, INTEGER, MISSING_INTEGER, STRING, Column

# A kind of text in files beside `DATE`: dates with a zone or an offset.
ZONED = "zoned date"
# Microseconds of each unit of epoch numbers.
UNITS = {"D": 86_400 * 10**6, "h": 3_600 * 10**6, "m": 60 * 10**6, "s": 10**6, "ms": 10**3, "us": 1, "ns": 1e-3}


def read_times(column: Column, zone: _calendar.Zone, text_format: str | None, unit: str | None) -> np.ndarray:
    """int64 (n,), `MISSING_INTEGER` where there is none.

    Args:
        column: Of dates, times, epoch numbers (with `unit`) or strings (with `text_format`).
        zone: What times without a zone of their own are told in.
        text_format: Of strings, as `pandas.to_datetime` takes it.
        unit: Of epoch numbers.
    """
    if column.is_list or column.kind not in (EMPTY, STRING, INTEGER, FLOAT, DATE):
        raise ValueError(f"`{column.name}` must hold dates or times. Received: {column.shown}")
    if column.kind == EMPTY:
        return np.full(len(column.series), MISSING_INTEGER)
    if column.kind == STRING:
        found, is_local = _of_texts(column, text_format)
    elif column.kind in (INTEGER, FLOAT):
        found, is_local = _of_numbers(column, unit), False
    else:
        try:
            found, is_local = _of_dates(column.series)
        except (pd.errors.OutOfBoundsDatetime, pa.ArrowInvalid, OverflowError) as error:
            raise ValueError(f"`{column.name}` must hold dates of the years 1 to 9999. Received: {error}") from error
    there = found != MISSING_INTEGER
    found = _in_utc(column, found, there & is_local, zone)
    bad = there & ((found < _calendar.FIRST) | (found > _calendar.LAST))
    advice = f" Is `unit` right? Received: unit={unit!r}" if column.kind in (INTEGER, FLOAT) else ""
    _refuse(column, "must hold dates of the years 1 to 9999", bad, advice)
    return found


def _in_utc(column: Column, found: np.ndarray, is_local: np.ndarray, zone: _calendar.Zone) -> np.ndarray:
    if zone == _calendar.UTC or not is_local.any():
        return found
    seconds = found[is_local] // _calendar.SECOND
    in_utc, exists = zone.to_utc(seconds)
    skipped = np.zeros(len(found), bool)
    skipped[is_local] = ~exists
    _refuse(column, "must hold times that there are in the time zone: clocks are put forward over others", skipped)
    found = found.copy()
    found[is_local] += (in_utc - seconds) * _calendar.SECOND
    return found


def _of_numbers(column: Column, unit: str | None) -> np.ndarray:
    if unit is None:
        raise ValueError(
            f"`{column.name}` must hold dates or times; numbers need `unit`, such as Datetime(..., unit='s') for "
            f"seconds since 1970. Received: {column.shown}, unit=None"
        )
    size = UNITS[unit]
    whole = column.integers()
    if whole is None:
        numbers = column.numbers()
        _refuse(column, "must hold finite numbers", np.isinf(numbers))
        missing = np.isnan(numbers)
        scaled = np.where(missing, 0.0, numbers) * size
        far = np.abs(scaled) > 2.0**62
        return np.where(missing, MISSING_INTEGER, np.where(far, _calendar.LAST + 1, np.rint(scaled)).astype(np.int64))
    missing = whole == MISSING_INTEGER
    if unit == "ns":
        return np.where(missing, MISSING_INTEGER, whole // 1_000)
    far = ~missing & ((whole > 2**62 // int(size)) | (whole < -(2**62) // int(size)))
    return np.where(missing, MISSING_INTEGER, np.where(far, _calendar.LAST + 1, np.where(far, 0, whole) * int(size)))


def _of_texts(column: Column, text_format: str | None) -> tuple[np.ndarray, Any]:
    """Each distinct text is read once."""
    if text_format is None:
        raise ValueError(
            f"`{column.name}` must hold dates or times; strings need `format`, such as Datetime(..., "
            f"format='%Y-%m-%d'). Received: strings{column._few()}, format=None"
        )
    cells = column.cells()
    texts = pd.Series(cells.values.astype(str), dtype=object)
    try:
        utc = "%z" in text_format.lower()
        parsed = pd.to_datetime(texts, format=text_format, errors="coerce", utc=utc)
    except ValueError as error:
        raise ValueError(
            f"`{column.name}` must hold strings of the format {text_format!r}. Received: {error}"
        ) from error
    wrong = parsed.isna().to_numpy()
    if wrong.any():
        at = np.append(wrong, False)[cells.codes]
        _refuse(column, f"must hold strings of the format {text_format!r}", at)
    micros, is_local = _of_dates(parsed)
    return np.append(micros, MISSING_INTEGER)[cells.codes], np.append(is_local, False)[cells.codes]


def _of_dates(series: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds, and which of them are of local time."""
    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        array = pa.array(series)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        zone = getattr(array.type, "tz", None)
        array = pc.cast(array, pa.timestamp("us", zone), safe=False).cast(pa.int64())
        return np.asarray(pc.fill_null(array, MISSING_INTEGER)), np.full(len(series), zone is None)
    if isinstance(dtype, pd.DatetimeTZDtype):
        naive = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return _micros(naive), np.zeros(len(series), bool)
    if dtype.kind == "M":
        return _micros(series), np.ones(len(series), bool)
    codes, values = pd.factorize(series)
    stamps = [pd.Timestamp(value) for value in values]
    in_utc = [int(stamp.as_unit("us").to_datetime64().astype(np.int64)) for stamp in stamps]
    micros = np.array([*in_utc, MISSING_INTEGER], np.int64)
    return micros[codes], np.array([*(stamp.tzinfo is None for stamp in stamps), False])[codes]


def _micros(naive: pd.Series) -> np.ndarray:
    return naive.astype("datetime64[us]").to_numpy().view(np.int64).copy()


def _refuse(column: Column, rule: str, bad: np.ndarray, advice: str = "") -> None:
    """Raises where any row is `bad`, naming the first ones and what they hold."""
    if bad.any():
        few = np.flatnonzero(bad)[:5]
        found = "; ".join(f"row {row}: {str(column.series.iloc[row])!r}" for row in few)
        more = "; ..." if bad.sum() > len(few) else ""
        raise ValueError(
            f"`{column.name}` {rule}. Received: {int(bad.sum())} of {len(bad)} rows, {found}{more}.{advice}"
        )


def is_date(column: Column) -> bool:
    """Whether a column holds dates or times by its type."""
    return column.kind == DATE and not column.is_list
