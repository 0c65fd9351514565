"""FeatureTransform.infer: the rules, what it reports, and the warning of leaks."""

import logging
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MulticlassTask, Numeric, Sequence
from mtl_zoo.features import _leak, _separation

CLICK = BinaryTask("click")
N = 1500


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 1400, N),
            "ID": rng.permutation(N),
            "city": rng.choice(["Rome", "Oslo", None], N),
            "is new?": rng.random(N) < 0.5,
            "level": rng.integers(0, 5, N),
            "age": np.where(rng.random(N) < 0.1, np.nan, rng.integers(18, 80, N)),
            "clicks before": rng.integers(0, 10**6, N),
            "price": rng.lognormal(size=N),
            "height": np.where(rng.random(N) < 0.1, np.nan, rng.normal(size=N)),
            "tags": [list(rng.choice(["a", "b", "c"], k)) for k in rng.integers(0, 3, N)],
            "history": [list(range(k)) for k in rng.integers(0, 80, N)],
            "note": [f"text {i}" for i in range(N)],
            "country": "IT",
            "empty": None,
            "click": rng.integers(0, 2, N),
            "shown": 1,
            "w": rng.random(N),
        }
    )


def number(name, **arguments):
    """What `infer` makes of a number."""
    return Numeric(name, **{"encoding": "piecewise_linear", **arguments})


def by_name(transform):
    return {feature.name: feature for feature in transform.features}


def test_the_rules(frame):
    transform = FeatureTransform.infer(frame, CLICK, exclude=["w", "shown"], embedding_dim=8)
    assert not transform.is_fitted
    features = by_name(transform)
    assert features == {
        "user_id": Categorical("user_id", dim=8),
        "ID": Categorical("ID", dim=8),
        "city": Categorical("city", dim=8),
        "is_new": Categorical("is_new", column="is new?", dim=8),
        "level": Categorical("level", dim=8),
        "age": number("age", dim=8),
        "clicks_before": number("clicks_before", column="clicks before", dim=8),
        "price": number("price", dim=8),
        "height": number("height", dim=8),
        "tags": Sequence("tags", dim=8, length=2),
        "history": Sequence("history", dim=8, length=50),
        "note": Categorical("note", dim=8),
    }
    arrays = transform.fit(frame).encode(frame)
    assert set(arrays) == {*features, "age.missing", "height.missing"}


def test_what_was_chosen_is_logged_and_described(frame, caplog):
    caplog.set_level(logging.INFO, logger="mtl_zoo")
    transform = FeatureTransform.infer(frame, CLICK, exclude=["w", "shown"])
    assert "Features of 1500 rows" in caplog.text and "named like an id" in caplog.text
    assert (
        "Columns left out, since they say nothing: country (constant: ['IT']), empty (no value in any row)"
        in caplog.text
    )
    assert "`exclude=` leaves them out: note" in caplog.text
    assert "`categorical=` makes ids of them: age, clicks before" in caplog.text
    described = transform.describe().set_index("name")
    assert described.loc["country", "kind"] == "left out" and described.loc["country", "distinct"] == 1
    assert described.loc["is_new", "column"] == "is new?"
    assert described.loc["is_new", "rule"] == "booleans, 2 distinct"
    assert described.loc["level", "rule"] == "whole numbers, 5 distinct"
    assert described.loc["height", "rule"].endswith("missing ones become the mean, and an indicator says which")
    assert described.loc["height", "missing"] == frame["height"].isna().sum()
    assert described.loc["history", "rule"] == "lists of whole numbers, up to 79 values, the last 50 kept"
    assert transform.fit(frame).describe().set_index("name").loc["tags", "rule"] == "lists of strings, up to 2 values"


def test_label_space_and_weight_columns_are_never_features(frame):
    buy = BinaryTask("buy", label="is new?", sample_space="click", sample_weight="price")
    names = by_name(FeatureTransform.infer(frame, buy, sample_weight="w"))
    assert not {"is_new", "click", "price", "w"} & set(names)


def test_own_specs_override(frame):
    own = [Categorical("city", hash_buckets=9), Numeric("age_number", column="age", missing="median")]
    features = by_name(FeatureTransform.infer(frame, CLICK, features=own))
    assert features["city"].hash_buckets == 9 and features["age_number"].missing == "median" and "age" not in features
    alone = FeatureTransform.infer(frame, CLICK, features=Categorical("city", size=3), exclude="note")
    assert alone.features[0].size == 3 and "note" not in by_name(alone)


def test_one_value_and_missing_ones_is_no_constant():
    table = pd.DataFrame({"promo": ["yes", None, "yes", None], "click": [0, 1, 1, 0]})
    assert by_name(FeatureTransform.infer(table, CLICK)) == {"promo": Categorical("promo")}


def test_renamed_columns_do_not_collide():
    table = pd.DataFrame({"a_b": [1, 2], "a b": [3, 4], "a/b": [5, 6], "click": [0, 1]})
    features = by_name(FeatureTransform.infer(table, CLICK))
    assert {f.name: f.source for f in features.values()} == {"a_b": "a_b", "a_b_2": "a b", "a_b_3": "a/b"}


def test_arrow_tables():
    table = pa.table({"id": pa.array([2**60, 2**60 + 1, None]), "click": [0, 1, 1]})
    transform = FeatureTransform.infer(table, CLICK).fit(table)
    assert transform.encode(table)["id"].tolist() == [2, 3, 0]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"wait": pd.Timedelta("1D")}, {}, r"`wait` must not hold dates or times.*Derive columns"),
        ({"poster": b"\xff\xd8"}, {}, r"`poster` must not hold bytes.*read them as an Image"),
        ({"mixed": [1, "a"] * 3}, {}, r"`mixed` must hold values of one type. Received: {'int': 3, 'str': 3}"),
        (
            {"vector": [[0.5, 1.0], [0.5]] * 3},
            {},
            r"`vector` holds lists of numbers.*Received: lists of numbers. Name it in",
        ),
        ({3: 1}, {}, r"`table` must have strings as column names. Received: \[3\]"),
        ({}, {"exclude": ["citi"]}, r"Received without: \['citi'\].*Did you mean \['city'\]"),
        ({}, {"features": [Numeric("none")]}, r"Received without: \['none'\]"),
        (
            {},
            {"features": [Categorical("city")], "exclude": ["city"]},
            r"`exclude` must not name columns that `features`",
        ),
        ({}, {"exclude": ["city", "price"]}, r"`table` must have a column that can be a feature. Received: \[\]"),
        ({}, {"embedding_dim": 0}, r"`embedding_dim` must be a whole number >= 1. Received: embedding_dim=0"),
        ({}, {"features": [Numeric("click")]}, r"`features` must not read 'click', which is a label"),
        ({"click": "0"}, {}, r"These are strings; convert them"),
    ],
)
def test_refuses(change, arguments, message):
    table = pd.DataFrame({"city": ["a", "b"] * 3, "price": np.arange(6) / 7, "click": [0, 1] * 3})
    for name, values in change.items():
        table[name] = values
    with pytest.raises(ValueError, match=message):
        FeatureTransform.infer(table, CLICK, **arguments)


def test_duplicate_columns_are_refused():
    table = pd.DataFrame([[1, 2, 0]], columns=["a", "a", "click"])
    with pytest.raises(ValueError, match=r"different column names. Received twice: \['a'\]"):
        FeatureTransform.infer(table, CLICK)


# What a guess loses is said.


def infer_and_hear(table, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transform = FeatureTransform.infer(table, CLICK, **options)
    return by_name(transform), [str(warning.message) for warning in caught]


def many(values):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": values, "click": rng.integers(0, 2, len(values))})


# fault 5
@pytest.mark.parametrize("name", ["userId", "UserID", "user_id", "uid", "user", "movieId", "item.id", "sku", "ids"])
def test_names_of_ids_in_any_style(name):
    table = many(np.arange(1500)).rename(columns={"x": name})
    features, heard = infer_and_hear(table)
    assert features == {name: Categorical(name)} and not heard


# fault 5
@pytest.mark.parametrize("name", ["paid", "grid", "amount", "video_seconds", "valid"])
def test_other_whole_numbers_are_numbers_and_said(name):
    features, heard = infer_and_hear(many(np.arange(1500)).rename(columns={"x": name}))
    assert features == {name: number(name)}
    assert len(heard) == 1 and name in heard[0] and "categorical=" in heard[0]


# fault 6, 7, 21
@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (["-", "N/A", "1,234", *map(str, range(1497))], "pandas.to_numeric"),
        ([f"[{i}, {i + 1}]" for i in range(1500)], "ast.literal_eval"),
        ([str(day.date()) for day in pd.date_range("2015-07-01", periods=1500)], "Datetime('x', format="),
        ([f"{day:%d/%m/%Y} 10:00" for day in pd.date_range("2015-07-01", periods=1500)], "Datetime('x', format="),
        (["|".join(f"g{i >> k & 7}" for k in (0, 3, 6)) for i in range(1500)], "multi_hot=True, separator='|'"),
        ([", ".join(f"g{i >> k & 7}" for k in (0, 3, 6)) for i in range(1500)], "multi_hot=True, separator=','"),
        ([f"I have seen it {i} times, and liked it" for i in range(1500)], "Text('x')"),
    ],
    ids=["numbers", "lists", "dates", "times", "sets", "sets with commas", "texts"],
)
def test_strings_that_are_something_else_are_said(values, advice):
    _, heard = infer_and_hear(many(values))
    assert len(heard) == 1 and "`x`" in heard[0] and advice in heard[0]


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b", "c"] * 500,
        ["doctor or master of some science", "none of all these"] * 750,
        [f"a note, number {i}" for i in range(1500)],
        ["1", "x"] * 750,
    ],
)
def test_plain_strings_are_not_warned_of(values):
    assert infer_and_hear(many(values))[1] == []


# fault 20
def test_columns_by_kind_and_the_threshold(frame):
    features = by_name(
        FeatureTransform.infer(frame, CLICK, numeric=["level", "age"], categorical=["clicks before"], threshold=3)
    )
    assert features["level"] == number("level") and features["age"] == number("age")
    assert features["clicks_before"] == Categorical("clicks_before", column="clicks before")
    assert isinstance(by_name(FeatureTransform.infer(frame, CLICK, threshold=4))["level"], Numeric)
    # As it was before numbers were encoded.
    before = by_name(FeatureTransform.infer(frame, CLICK, threshold=1000, number_encoding=None))
    assert before["age"] == Categorical("age") and before["price"] == Numeric("price")
    with pytest.raises(ValueError, match=r"`number_encoding` must be"):
        FeatureTransform.infer(frame, CLICK, number_encoding="ple")
    with pytest.raises(ValueError, match=r"`numeric` must be names of columns. Received: numeric=3"):
        FeatureTransform.infer(frame, CLICK, numeric=3)
    with pytest.raises(ValueError, match=r"Received without: \['levle'\].*Did you mean \['level'\]"):
        FeatureTransform.infer(frame, CLICK, numeric=["levle"])
    with pytest.raises(ValueError, match=r"`exclude` must be names of columns"):  # fault 37
        FeatureTransform.infer(frame, CLICK, exclude=None)
    with pytest.raises(TypeError, match=r"`features` must be Categorical"):  # fault 37
        FeatureTransform.infer(frame, CLICK, features="x")


# fault 8
def test_names_of_other_scripts_are_renamed_by_one_rule(caplog):
    table = pd.DataFrame({"城市": ["a", "b"] * 2, "价格": [0.5, 1.5] * 2, "用户id": [1, 2] * 2, "click": [0, 1] * 2})
    features = by_name(FeatureTransform.infer(table, CLICK))
    assert {feature.source: name for name, feature in features.items()} == {
        "城市": "u57ce_u5e02",
        "价格": "u4ef7_u683c",
        "用户id": "u7528_u6237_id",
    }
    assert "'城市': 'u57ce_u5e02'" in caplog.text


# Leaks


@pytest.mark.parametrize("kind", ["number", "negative", "missing", "text", "flag"])
def test_a_feature_that_gives_the_label_away_is_named(frame, kind):
    click = frame["click"].to_numpy()
    rng = np.random.default_rng(1)
    frame["dwell"] = {
        "number": click + rng.random(N) / 2,
        "negative": -click - rng.random(N) / 2,
        "missing": np.where(click == 1, rng.normal(size=N), np.nan),
        "text": np.where(click == 1, "yes", "no"),
        "flag": click == 1,
    }[kind]
    with pytest.warns(
        UserWarning, match="`dwell` alone predicts 'click', the label of task 'click', with AUC"
    ) as caught:
        transform = FeatureTransform.infer(frame, CLICK, numeric=["clicks before"])
        transform.fit(frame)
    assert len(caught) == 1  # once, though fit looks too
    explicit = Categorical("dwell") if kind in ("text", "flag") else Numeric("dwell", missing="mean")
    with pytest.warns(UserWarning, match="`dwell` alone predicts 'click'"):
        FeatureTransform(explicit, CLICK).fit(frame)


def test_ids_and_noise_are_no_leak(frame):
    frame["pair_id"] = np.arange(N) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureTransform.infer(frame, CLICK, numeric=["clicks before"]).fit(frame)


def test_leaks_are_looked_for_in_the_sample_space(frame):
    frame["buy"] = np.where(frame["click"] == 1, frame["level"] > 2, 0).astype(int)
    task = BinaryTask("buy", sample_space="click")
    with pytest.warns(UserWarning, match="`level` alone predicts 'buy'"):
        FeatureTransform(Categorical("level"), task).fit(frame)


def test_few_labels_other_tasks_and_strings_are_no_evidence():
    table = pd.DataFrame({"x": [0.0, 1.0] * 5, "y": [0, 1] * 5, "kind": ["a", "b"] * 5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks = [BinaryTask("y"), MulticlassTask("kind", classes=("a", "b"))]
        FeatureTransform(Numeric("x"), tasks).fit(table)


def test_the_auc_and_the_rows_of_a_leak(monkeypatch):
    label = np.array([False, True, False, True])
    assert _separation.auc(np.array([1.0, 1.0, 0.0, 2.0]), label) == (1 + 0.5 + 1 + 1) / 4
    monkeypatch.setattr(_leak, "MOST_ROWS", 3)
    assert len(_leak._rows_of(BinaryTask("y"), {"y": np.array([0, 1, 0, np.nan, 1, 1])})) == 3
