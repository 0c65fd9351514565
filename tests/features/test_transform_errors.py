"""The columns and tables that FeatureTransform refuses, with their messages."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, encoded, table

from mtl_zoo import Categorical, Encoded, FeatureTransform, Numeric, Sequence

BAD_COLUMNS = [
    (Categorical("x"), ["a", 1], r"`x` must hold values of one type. Received: {'str': 1, 'int': 1}"),
    (Categorical("x"), [True, 1], r"Received: {'bool': 1, 'int': 1}"),
    (Categorical("x"), [["a"], "b"], r"`x` must hold lists of values of one type. Received: {'str': 2}"),
    (Sequence("x"), [["a", 1]], r"`x` must hold lists of values of one type. Received: {'str': 1, 'int': 1}"),
    (Categorical("x"), [{"a": 1}], r"`x` must not hold maps, or pairs.* Received: 1 rows of dtype object"),
    (Numeric("x"), pd.to_datetime(["2024-01-31"]), r"`x` must not hold dates or times. Received: 1 rows of dtype date"),
    (Categorical("x"), pd.to_datetime(["2024-01-31"], utc=True), r"UTC\], .*Read it as a Datetime, or derive columns"),
    (Categorical("x"), [datetime.date(2024, 1, 31)], r"must not hold dates or times.*'2024-01-31'"),
    (Categorical("x"), pd.to_timedelta(["1D"]), r"must not hold dates or times"),
    (Categorical("x"), pd.period_range("2024", periods=1, freq="D"), r"must not hold dates or times"),
    (Categorical("x"), [b"a"], r"`x` must not hold bytes.*Decode them"),
    (Numeric("x"), [decimal.Decimal(1)], r"`x` must not hold decimals.*astype\(float\)"),
    (Numeric("x"), pd.Series([1], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), r"`x` must not hold decimals"),
    (Categorical("x"), np.array([2**63], dtype="uint64"), r"below 2\^63. Received: 9223372036854775808"),
    (Categorical("x"), [2**70, 1], r"`x` must hold whole numbers below 2\^63. Received: 1180591620717411303424"),
    (Categorical("x"), [0.5, 2, 2], r"`x` must hold whole numbers or strings.*Received: 1 of 3 rows with \[0.5\]"),
    (Categorical("x", hash_buckets=9), [np.inf, 2], r"Received: 1 of 2 rows with \[inf\]. Use Numeric"),
    (Categorical("x", size=4), [0, -1, -7], r"`x` must hold the whole numbers 0 .. 3.*2 of 3 rows with \[-1, -7\]"),
    (Categorical("x", size=4), [0, 4], r"0 .. 3, since size=4. Received: 1 of 2 rows with \[4\]"),
    (Categorical("x", size=4), [0.5], r"must hold whole numbers or strings"),
    (
        Categorical("x", size=4),
        ["1"],
        r"must hold whole numbers, since feature 'x' has size=4. Received: strings, \['1'\]",
    ),
    (Sequence("x", size=4), ["1|-2"], r"whole numbers 0 .. 3 between separators. Received: 1 of 2 rows with \['-2'\]"),
    (
        Categorical("x", vocabulary=(1, 2)),
        ["1"],
        r"`vocabulary` must hold values of the column's type. Received: whole",
    ),
    (
        Categorical("x", vocabulary=("1",)),
        [1],
        r"`vocabulary` must hold values of the column's type. Received: strings",
    ),
    (Categorical("x", vocabulary=("a", "")), ["a"], r"`vocabulary` must not hold missing values.*Received: 1 of 2"),
    (Categorical("x", vocabulary=("a", 1)), ["a"], r"`vocabulary of x` must hold values of one type"),
    (Categorical("x"), [None, None], r"`x` must hold a value to fit feature 'x'. Received: 2 rows, all missing"),
    (Categorical("x"), ["", ""], r"`x` must hold a value to fit feature 'x'. Received: 2 rows, all missing"),
    (Categorical("x"), [[1], [2]], r"`x` holds lists.*Received: lists of whole numbers. Use Sequence"),
    (
        Sequence("x"),
        [1, 2],
        r"must hold lists, or strings with values between separators. Received: whole numbers, \[1",
    ),
    (
        Numeric("x"),
        ["1", "2"],
        r"`x` must hold numbers. Received: strings, \['1', '2'\]. Convert it with pandas.to_num",
    ),
    (Numeric("x"), [[1.0]], r"`x` must hold numbers. Received: lists of numbers"),
    (
        Numeric("x", missing=None),
        [1, np.nan, np.inf],
        r"finite numbers, since `missing` is None. Received: 2 of 3 rows with \[nan, inf\]",
    ),
    (
        Numeric("x", missing="mean"),
        [np.inf, np.inf],
        r"`x` must hold a finite number to fit feature 'x'. Received: 2 rows",
    ),
    (Numeric("x"), [1e308, -1e308], r"`x` must hold numbers whose variance is finite. Received: 2 of 2 rows"),
    (
        Encoded("x", len, shape=(2,)),
        [[1.0], [1.0, 2.0]],
        r"`x` must hold arrays of shape \(2,\). Received: 1 of 2 rows",
    ),
    (Encoded("x", len, shape=(None,)), [[1.0], [1.0, 2.0]], r"`x` must hold arrays of one shape, like the first row's"),
    (Encoded("x", len), [1.0, np.nan], r"`x` must hold finite numbers. Received: 1 of 2 rows with \[nan\]"),
    (Encoded("x", len, dtype="int32"), [1.5], r"whole numbers of 32 bits, since dtype='int32'. Received: 1 of 1 rows"),
    (Encoded("x", len, dtype="string"), [1, 2], r"`x` must hold strings. Received: whole numbers"),
    (Encoded("x", len, dtype="string", shape=(1,)), [[1], [2]], r"`x` must hold strings. Received: lists of whole"),
    # fault 35, 40: values beyond 32 bits; a hole in a vector
    (Encoded("x", len), [1.0, 1e300], r"numbers that fit in 32 bits. Received: 1 of 2 rows with \[1e\+300\]"),
    (
        Encoded("x", len, shape=(2,)),
        [[1.0, np.nan]],
        r"`x` must hold finite numbers. Received: 1 of 1 rows with",
    ),
    (Numeric("x", normalization="quantile"), [1.7e308, -1.7e308], r"numbers whose variance is finite"),
    # fault 14: what is there, and what can be done
    (Categorical("x"), [[["a"], ["b"]], [["c"]]], r"`x` holds lists.*Received: lists of lists. Say nested=True"),
    (Sequence("x"), [[["a"], ["b"]], [["c"]]], r"`x` must hold lists of single values. Received: lists of lists"),
    (
        Sequence("x"),
        pd.Series([[("a", 1.0)]], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.float64()))),
        r"`x` must not hold maps.*keep the values alone",
    ),
    # fault 37: a column of strings without any, a cell that is a table
    (Numeric("x"), pd.Series([None, None], dtype="category"), r"`x` must hold a value to fit feature 'x'"),
    (Numeric("x"), [pd.Series([1.0])], r"`x` must hold"),
    (Encoded("x", len, shape=(1,)), [["a"]], r"`x` must hold numbers for dtype='float32'. Received: lists of strings"),
]


@pytest.mark.parametrize(("feature", "values", "message"), BAD_COLUMNS, ids=[m[:60] for _, _, m in BAD_COLUMNS])
def test_fit_refuses_a_bad_column(feature, values, message):
    transform = FeatureTransform([feature])
    dtype = object if isinstance(values, list) and len({type(v) for v in values}) > 1 else None
    with pytest.raises(ValueError, match=message):
        transform.fit(pd.DataFrame({"x": pd.Series(values, dtype=dtype)}))
    assert not transform.is_fitted


def test_bad_tables():
    transform = FeatureTransform([Numeric("price"), Categorical("city")], CLICK)
    with pytest.raises(ValueError, match=r"`table` must have at least one row. Received: an empty table"):
        transform.fit(pd.DataFrame({"price": [], "city": [], "click": []}))
    with pytest.raises(ValueError, match=r"lacks 1 columns. Received without: \['price'\].*Did you mean \['prices'\]"):
        transform.fit(table(prices=[1.0], city=["a"]))
    twice = pd.DataFrame([[1.0, 2.0, "a", 1]], columns=["price", "price", "city", "click"])
    with pytest.raises(ValueError, match=r"`table` must have different column names. Received twice: \['price'\]"):
        transform.fit(twice)
    with pytest.raises(TypeError, match=r"`table` must be a pandas DataFrame, .* Received: table of type list"):
        transform.fit([1, 2])
    with pytest.raises(ValueError, match=r"`table` must have columns of one length. Received: {'price': 1, 'city': 2}"):
        transform.fit({"price": [1.0], "city": ["a", "b"]})
    with pytest.raises(ValueError, match="`fit` must be called first"):
        transform.encode(table(price=[1.0], city=["a"]))


def test_shared_tables_have_one_source():
    features = [Categorical("a", key="k", vocabulary=("x",)), Categorical("b", key="k", vocabulary=("y",))]
    with pytest.raises(ValueError, match="`vocabulary` must be the same for features that share the table 'k'"):
        FeatureTransform(features).fit({"a": ["x"], "b": ["y"]})


@pytest.mark.parametrize(
    ("train", "new", "message"),
    [
        (["a", "b"], [1, 2], r"`x` must hold strings, as in the table.*Received: whole numbers, dtype int64"),
        (
            [1, 2],
            ["1", "2"],
            r"`x` must hold whole numbers, as in the table that feature 'x' was fitted on. Received: str",
        ),
        (["a"], [["a"]], r"`x` must hold strings.*Received: lists of strings"),
        ([1, 2], [1.5, 1], r"`x` must hold whole numbers or strings.*1 of 2 rows with \[1.5\]"),
        (["a"], pd.to_datetime(["2024-01-31"]), r"must hold strings, as in .* Received: dates or times"),
    ],
)
def test_encode_refuses_another_type(train, new, message):
    with pytest.raises(ValueError, match=message):
        encoded(Categorical("x"), train, new)


def test_encode_refuses_missing_columns_and_bad_values():
    transform = FeatureTransform([Numeric("x", missing=None), Categorical("c", size=3)], CLICK).fit(
        table(x=[1.0, 2.0], c=[0, 1])
    )
    with pytest.raises(ValueError, match=r"Received without: \['c'\]"):
        transform.encode({"x": [1.0]})
    with pytest.raises(ValueError, match=r"since `missing` is None. Received: 1 of 1 rows"):
        transform.encode({"x": [np.nan], "c": [1]})
    with pytest.raises(ValueError, match=r"whole numbers 0 .. 2.*with \[-1\]"):
        transform.encode({"x": [1.0], "c": [-1]})
    with pytest.raises(ValueError, match=r"fit in 32 bits once scaled. Received: 1 of 1 rows with \[1e\+300\]"):
        transform.encode({"x": [1e300], "c": [1]})
    assert transform.encode({"x": [1.0], "c": [None]})["c"].tolist() == [0]


def test_an_error_leaves_the_fitted_state():
    transform = FeatureTransform([Categorical("x")], CLICK).fit(table(x=["a", "b"]))
    with pytest.raises(ValueError, match="`click` must be 0 or 1"):
        transform.fit(table(x=["c", "d"]).assign(click=5))
    assert transform.encode({"x": ["a", "b", "c"]})["x"].tolist() == [2, 3, 1]
