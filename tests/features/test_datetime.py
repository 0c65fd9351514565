"""Dates and times: their parts against Python's own calendar, zones, forms of columns, and what is refused."""

import datetime
import math
import zoneinfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, table

from mtl_zoo import Categorical, Datetime, FeatureTransform, Numeric
from mtl_zoo.features import TableStream, _calendar

ZONES = ["Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
PERIODIC = ("month", "day", "weekday", "hour")


def encode(feature, cells, new=None):
    transform = FeatureTransform(feature).fit({"t": cells})
    return transform.encode({"t": cells if new is None else new})


def oracle(moment, part):
    """Parts as Python's datetime tells them."""
    zero_based = {"month": moment.month - 1, "day": moment.day - 1, "weekday": moment.weekday(), "hour": moment.hour}
    return {"year": moment.year, **zero_based}[part]


def test_the_calendar_is_pythons_over_all_its_years():
    rng = np.random.default_rng(0)
    seconds = rng.integers(_calendar.FIRST // 10**6, _calendar.LAST // 10**6, 3000)
    edges = [
        datetime.datetime(y, m, d, 23, 59, 59)
        for y in (1, 1900, 1970, 2000, 2024, 9999)
        for m, d in [(2, 28), (12, 31)]
    ]
    seconds = np.append(
        seconds, [(e.replace(tzinfo=datetime.UTC) - EPOCH) // datetime.timedelta(seconds=1) for e in edges]
    )
    seconds = np.append(seconds, seconds[-12:-1] + 1)
    found = _calendar.calendar_parts(seconds)
    for i, second in enumerate(seconds.tolist()):
        moment = EPOCH + datetime.timedelta(seconds=second)
        assert {part: int(values[i]) for part, values in found.items()} == {p: oracle(moment, p) for p in found}


@pytest.mark.parametrize("name", ZONES)
def test_offsets_are_those_of_the_zone(name):
    zone, table_ = zoneinfo.ZoneInfo(name), _calendar.zone_named(name)
    rng = np.random.default_rng(1)
    seconds = rng.integers(-2_000_000_000, 4_000_000_000, 500)
    seconds = np.concatenate([seconds, *[np.array(table_.starts, int) + k for k in (-1, 0, 1)]])
    at = np.searchsorted(table_.starts, seconds, side="right")
    for second, offset in zip(seconds.tolist(), np.array(table_.offsets)[at].tolist(), strict=True):
        moment = (EPOCH + datetime.timedelta(seconds=second)).astimezone(zone)
        assert offset == moment.utcoffset().total_seconds(), moment


@pytest.mark.parametrize("name", ZONES)
def test_local_times_become_those_of_utc(name):
    zone, table_ = zoneinfo.ZoneInfo(name), _calendar.zone_named(name)
    rng = np.random.default_rng(2)
    local = rng.integers(-500_000_000, 4_000_000_000, 400)
    edges = np.array(table_.starts, int)[-40:]
    local = np.concatenate([local, *[edges + o + k for o in set(table_.offsets[-40:]) for k in (-1800, -1, 0, 1800)]])
    found, exists = table_.to_utc(local)
    for second, utc, real in zip(local.tolist(), found.tolist(), exists.tolist(), strict=True):
        naive = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=second)
        first = naive.replace(tzinfo=zone, fold=0)
        back = first.astimezone(datetime.UTC).astimezone(zone).replace(tzinfo=None)
        assert real == (back == naive), naive
        if real:
            assert utc == first.timestamp(), naive


@pytest.mark.parametrize("name", ["Europe/Rome", None])
def test_cyclic_parts_are_sines_and_cosines(name):
    rng = np.random.default_rng(3)
    stamps = pd.to_datetime(rng.integers(0, 2_000_000_000, 50), unit="s", utc=True)
    parts = ("year", *PERIODIC)
    found = encode(Datetime("t", parts=parts, timezone=name), stamps)["t"]
    zone = zoneinfo.ZoneInfo(name or "UTC")
    moments = [stamp.to_pydatetime().astimezone(zone) for stamp in stamps]
    years = np.array([m.year for m in moments])
    np.testing.assert_allclose(found[:, 0], (years - years.mean()) / years.std(), atol=1e-6)
    for i, (part, period) in enumerate(zip(PERIODIC, (12, 31, 7, 24), strict=True)):
        angle = np.array([2 * math.pi * oracle(m, part) / period for m in moments])
        np.testing.assert_allclose(found[:, 1 + 2 * i], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(found[:, 2 + 2 * i], np.cos(angle), atol=1e-6)


def test_trend_and_elapsed_are_standardised_days():
    days = np.array([0.0, 1.5, 400.0, -30.0])
    stamps = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
    found = encode(Datetime("t", parts=("trend", "elapsed"), since="2020-01-01"), stamps)["t"]
    logs = np.sign(days) * np.log1p(np.abs(days))
    np.testing.assert_allclose(found[:, 0], (days - days.mean()) / days.std(), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], (logs - logs.mean()) / logs.std(), atol=1e-6)


def test_the_reference_is_told_in_the_zone():
    one = Datetime("t", parts=("elapsed",), since="2024-07-01", timezone="Europe/Rome")
    stamps = ["2024-07-01T00:00", "2024-07-03T00:00", "2024-07-02T12:00"]
    found = encode(one, pd.to_datetime(stamps))["t"][:, 0]
    same = Datetime("t", parts=("elapsed",), since="2024-06-30T22:00:00+00:00", timezone="Europe/Rome")
    np.testing.assert_array_equal(found, encode(same, pd.to_datetime(stamps))["t"][:, 0])
    assert found.argmin() == 0 and one.since == "2024-07-01T00:00:00"
    assert Datetime("t", parts="elapsed", since=datetime.date(2024, 7, 1)).since == "2024-07-01"


def test_embedded_parts_are_ids_and_other_years_unknown():
    feature = Datetime("t", parts=("year", "weekday", "trend"), encoding="embedded")
    train = pd.to_datetime(["2020-01-06", "2022-01-09"])
    new = [pd.Timestamp("2021-03-02"), None, pd.Timestamp("2023-03-02"), pd.Timestamp("2019-12-31")]
    found = encode(feature, train, new)
    assert found["t"].tolist() == [[3, 3], [0, 0], [1, 5], [1, 3]]
    assert found["t.numbers"].shape == (4, 1) and found["t.numbers"][1, 0] == 0


def test_what_never_changed_is_zero():
    found = encode(
        Datetime("t", parts=("trend", "year")), [pd.Timestamp("2020-05-01")] * 3, [pd.Timestamp("2024-05-01")]
    )
    assert found["t"].tolist() == [[0.0, 0.0]]


UTC_STAMPS = ["2024-03-31 00:30:00", "2024-02-29 23:59:59", "1969-12-31 00:00:01"]
NAIVE = pd.to_datetime(UTC_STAMPS)
OFFSET_TEXTS = ["2024-03-31 02:30:00+02:00", "2024-03-01 01:59:59+02:00", "1969-12-31 05:30:01+0530"]
SECONDS = (NAIVE - pd.Timestamp("1970-01-01")) // pd.Timedelta("1s")


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (NAIVE.astype("datetime64[ns]"), {}),
        (NAIVE.astype("datetime64[s]"), {}),
        (NAIVE.tz_localize("UTC").tz_convert("Asia/Tokyo"), {}),
        (pd.Series([stamp.to_pydatetime() for stamp in NAIVE], dtype=object), {}),
        (pd.Series([stamp.tz_localize("UTC").to_pydatetime() for stamp in NAIVE], dtype=object), {}),
        (pd.Series([stamp.to_numpy() for stamp in NAIVE], dtype=object), {}),
        (pd.Series(pa.array(NAIVE.to_pydatetime(), pa.timestamp("ms")), dtype=pd.ArrowDtype(pa.timestamp("ms"))), {}),
        (pd.Series(NAIVE).astype(pd.ArrowDtype(pa.timestamp("ns"))).astype("category"), {}),
        (SECONDS, {"unit": "s"}),
        (np.array(SECONDS) * 1000, {"unit": "ms"}),
        (np.array(SECONDS) * 10**9, {"unit": "ns"}),
        (np.array(SECONDS) / 3600, {"unit": "h"}),
        (UTC_STAMPS, {"format": "%Y-%m-%d %H:%M:%S"}),
        (OFFSET_TEXTS, {"format": "%Y-%m-%d %H:%M:%S%z"}),
    ],
    ids=[
        *("ns", "s", "zone", "python", "python with zone", "numpy", "arrow", "categories", "epoch s", "epoch ms"),
        *("epoch ns", "epoch h", "texts", "texts with offset"),
    ],
)  # fmt: skip
def test_all_forms_of_a_column_are_read(cells, options):
    feature = Datetime("t", parts=("trend", "hour", "day"), **options)
    np.testing.assert_allclose(
        encode(feature, cells)["t"], encode(Datetime("t", parts=feature.parts), NAIVE)["t"], atol=2e-6
    )


def test_dates_are_midnight():
    dates = [datetime.date(2024, 2, 29), None, datetime.date(1999, 1, 1)]
    found = encode(Datetime("t", parts=("hour", "day")), dates)
    np.testing.assert_allclose(
        found["t"][0], [0, 1, math.sin(2 * math.pi * 28 / 31), math.cos(2 * math.pi * 28 / 31)], atol=1e-6
    )
    assert found["t"][1].tolist() == [0, 0, 0, 0] and found["t.missing"].tolist() == [0, 1, 0]
    arrow = pd.Series(pa.array(dates, pa.date32()), dtype=pd.ArrowDtype(pa.date32()))
    np.testing.assert_array_equal(encode(Datetime("t", parts=("hour", "day")), arrow)["t"], found["t"])


def test_a_time_that_comes_twice_is_the_first():
    feature = Datetime("t", parts=("trend",), timezone="Europe/Rome")
    transform = FeatureTransform(feature).fit({"t": pd.to_datetime(["2024-10-27 02:30", "2024-10-28 00:00"])})
    assert transform.raw_arrays({"t": pd.to_datetime(["2024-10-27 02:30"])})["t"][0] == 1_729_989_000 * 10**6


HOSTILE = [
    (
        {"timezone": "Europe/Rome"},
        pd.to_datetime(["2024-03-31 02:30", "2024-01-01 00:00"]),
        r"`t` must hold times that there are in the time zone.*1 of 2 rows, row 0: '2024-03-31 02:30:00'",
    ),
    (
        {"format": "%Y-%m-%d"},
        ["2024-01-31", "31/01/2024", None],
        r"`t` must hold strings of the format '%Y-%m-%d'.*1 of 3 rows, row 1: '31/01/2024'",
    ),
    ({"format": "%Y-%m-%d"}, ["2023-02-29", "2024-01-01"], r"row 0: '2023-02-29'"),
    ({"format": "%Q"}, ["2023-02-28"] * 2, r"`t` must hold strings of the format '%Q'"),
    ({}, ["2024-01-31"] * 2, r"strings need `format`.*Received: strings, \['2024-01-31'\], format=None"),
    ({}, [1_700_000_000, 1], r"numbers need `unit`.*unit=None"),
    ({"unit": "s"}, [1_700_000_000_000, 1], r"9999.*row 0: '1700000000000'. Is `unit` right\? Received: unit='s'"),
    ({"unit": "D"}, [2**62, -(2**62)], r"years 1 to 9999.*2 of 2 rows"),
    ({"unit": "s"}, [np.inf, 1.0], r"must hold finite numbers.*row 0: 'inf'"),
    ({"unit": "s"}, [1e300, 1.0], r"years 1 to 9999"),
    ({}, np.array(["99999-01-01", "2020-01-01"], "datetime64[s]"), r"years 1 to 9999"),
    ({"unit": "s"}, [True, False], r"must hold dates or times. Received: booleans"),
    ({}, [[1], [2]], r"must hold dates or times. Received: lists"),
    ({}, pd.to_datetime([None, None]), r"`t` must hold a value to fit feature 't'. Received: 2 rows, all missing"),
    ({}, [pd.Timestamp("2024-01-01"), "2024-01-02"], r"must hold values of one type"),
]


@pytest.mark.parametrize(("options", "cells", "message"), HOSTILE, ids=[m[:40] for *_, m in HOSTILE])
def test_what_is_refused_is_named_by_row(options, cells, message):
    with pytest.raises(ValueError, match=message):
        encode(Datetime("t", **options), cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": ("century",)}, r"`parts` must be one of the known values. Received: parts='century'"),
        ({"parts": ()}, "`parts` must hold different parts, at least one"),
        ({"parts": ("hour", "hour")}, "`parts` must hold different parts"),
        ({"parts": ("elapsed",)}, "`since` goes with the part 'elapsed'"),
        ({"since": "2020-01-01"}, "`since` goes with the part 'elapsed'"),
        ({"parts": ("elapsed",), "since": "yesterday"}, r"`since` must be a date.*since='yesterday'"),
        ({"timezone": "Mars/Olympus"}, r"`timezone` must be the name of a time zone.*'Mars/Olympus'"),
        ({"timezone": "../etc/passwd"}, "`timezone` must be the name of a time zone"),
        ({"unit": "fortnight"}, "`unit` must be one of the known values"),
        ({"encoding": "onehot"}, "`encoding` must be one of the known values"),
        ({"encoding": "embedded", "parts": ("trend",)}, "`parts` must hold one that has a table"),
        ({"format": ""}, "`format` must be such as"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Datetime("t", **arguments)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("encoding", ["cyclic", "embedded"])
def test_a_graph_gives_the_same(name, encoding):
    rng = np.random.default_rng(4)
    seconds = np.append(
        rng.integers(-3_000_000_000, 6_000_000_000, 300), np.array(_calendar.zone_named(name).starts[-60:], int)
    )
    frame = pd.DataFrame({"t": pd.to_datetime(np.append(seconds, seconds - 1), unit="s", utc=True)})
    frame.loc[3, "t"] = pd.NaT
    parts = ("trend", "elapsed", "year", *PERIODIC)
    feature = Datetime("t", parts=parts, since="2001-05-05", timezone=name, encoding=encoding)
    transform = FeatureTransform(feature).fit(frame)
    raw = transform.raw_arrays(frame)
    assert raw["t"].dtype == np.int64
    found = transform.encode_in_graph(raw)
    for key, expected in transform.encode(frame).items():
        np.testing.assert_allclose(found[key].numpy(), expected, atol=1e-6)


@pytest.mark.tensorflow
def test_a_graph_takes_what_no_calendar_has_for_missing():
    transform = FeatureTransform(Datetime("t", parts=("day",))).fit({"t": [pd.Timestamp("2024-01-01"), pd.NaT]})
    found = transform.encode_in_graph({"t": np.array([2**62, -(2**63), 0], "int64")})
    assert found["t.missing"].numpy().tolist() == [1, 1, 0] and not found["t"].numpy()[:2].any()


def test_one_column_is_not_exported_in_two_readings():
    features = [Datetime("t", unit="s"), Numeric("plain", column="t")]
    transform = FeatureTransform(features).fit({"t": [1, 2, 3]})
    assert list(transform.encode({"t": [1, 2, 3]})) == ["t", "plain"]
    with pytest.raises(ValueError, match=r"`t` must be read in one way.*Received: \['t', 'plain'\]"):
        transform.raw_signature()


def test_rules_of_zones_travel_with_the_transform(tmp_path, monkeypatch):
    stamps = {"t": pd.to_datetime(["2024-07-01 12:00", "2024-01-01 12:00"], utc=True)}
    transform = FeatureTransform(Datetime("t", parts=("hour",), timezone="Europe/Rome")).fit(stamps)
    transform.save(tmp_path / "transform")
    expected = transform.encode(stamps)["t"]
    loaded = FeatureTransform.load(tmp_path / "transform")
    monkeypatch.setattr(_calendar, "zone_named", lambda name: _calendar.UTC)
    np.testing.assert_array_equal(loaded.encode(stamps)["t"], expected)
    assert expected[0, 0] != expected[1, 0]  # 14 o'clock and 13 o'clock


@pytest.mark.tensorflow
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_files_carry_times(zone, tmp_path):
    frame = table(
        t=pd.date_range("2024-02-27 22:10", periods=40, freq="97min", tz=zone), city=["a", "b", "b", "a"] * 10
    )
    frame.loc[7, "t"] = pd.NaT
    transform = FeatureTransform([Datetime("t"), Categorical("city")], CLICK).fit(frame)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    expected = transform.encode(frame)
    for file in ("rows.parquet", "rows.csv"):
        for inputs, _ in TableStream(tmp_path / file, transform).batches(batch_size=40):
            np.testing.assert_array_equal(inputs["t"].numpy(), expected["t"])
            np.testing.assert_array_equal(inputs["t.missing"].numpy(), expected["t.missing"])


@pytest.mark.tensorflow
def test_files_whose_times_differ_in_zone_are_refused(tmp_path):
    frame = table(t=pd.date_range("2024-02-27", periods=4))
    transform = FeatureTransform(Datetime("t"), CLICK).fit(frame)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.assign(t=frame["t"].astype("datetime64[ns]")).to_parquet(tmp_path / "b.parquet")
    assert TableStream(tmp_path, transform).rows == 8
    frame.assign(t=frame["t"].dt.tz_localize("UTC")).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"`t` must hold the same kind of values in all files.*dates with a zone in"):
        TableStream(tmp_path, transform)


# fault 21
def test_infer_makes_one_of_a_column_of_times():
    frame = table(
        at=pd.date_range("2024-01-01 10:00", periods=6, freq="5h"),
        born=[datetime.date(1990, 1, 1 + i) for i in range(6)],
        never=pd.Series([pd.NaT] * 6),
        once=[pd.Timestamp("2024-01-01")] * 6,
    )
    frame.loc[2, "at"] = pd.NaT
    transform = FeatureTransform.infer(frame, CLICK)
    assert transform.specs == (Datetime("at"), Datetime("born", parts=("trend", "month", "weekday")))
    told = transform.describe().set_index("name")
    assert told.loc["at", ["kind", "rule", "distinct", "missing"]].tolist() == [
        "datetime", "dates, 5 distinct, as trend, month, weekday, hour", 5, 1,
    ]  # fmt: skip
    assert told.loc["never", "rule"] == "no value in any row" and told.loc["once", "kind"] == "left out"
    assert set(transform.fit(frame).encode(frame)) == {"at", "at.missing", "born"}
