"""The graph form of a transform gives what the pandas form gives."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mtl_zoo import BinaryTask, Categorical, Encoded, FeatureTransform, Numeric, Sequence
from mtl_zoo.features._columns import MISSING_INTEGER

BIG = 2**53 + 1


def both(features, train, new):
    """`new` in pandas and, traced, in a graph: checked to be equal, and returned."""
    transform = FeatureTransform(features).fit(pd.DataFrame(train))
    new = pd.DataFrame(new)
    arrays = transform.encode(new)
    raw = transform.raw_arrays(new)
    traced = tf.function(lambda **columns: transform.encode_in_graph(columns), autograph=False)
    signature = transform.raw_signature()
    concrete = traced.get_concrete_function(**signature)
    tensors = concrete(**{name: tf.constant(array, signature[name].dtype) for name, array in raw.items()})
    for name, array in arrays.items():
        tensor = tensors[name].numpy()
        if array.dtype == object:
            assert [t.decode() for t in tensor.ravel()] == array.ravel().tolist()
            continue
        assert tensor.dtype == array.dtype and tensor.shape == array.shape
        np.testing.assert_allclose(tensor, array, rtol=1e-6, atol=1e-6)
    return arrays


TEXTS = pd.Series(["Rome", "Oslo", None, "", "Rome"], dtype=object)
NEW_TEXTS = pd.Series(["Oslo", "Bonn", None, "", "Größe", "1.0"], dtype=object)
INTEGERS = [5, 7, 7, BIG, -2]
NEW_INTEGERS = [7, 5, BIG, BIG + 1, -2, -3, 2**40]
FLOATS = [1.0, 2.0, np.nan, 2.0, 3.0]
NEW_FLOATS = [2.0, 1.0, np.nan, 9.0, -4.0, -0.0]
FLAGS = [True, False, True]


@pytest.mark.parametrize("options", [{}, {"min_count": 2}, {"max_ids": 1}, {"hash_buckets": 20}], ids=str)
@pytest.mark.parametrize(
    ("train", "new"),
    [(TEXTS, NEW_TEXTS), (INTEGERS, NEW_INTEGERS), (FLOATS, NEW_FLOATS), (FLAGS, [False, True])],
    ids=["strings", "integers", "floats", "booleans"],
)
def test_categoricals(options, train, new):
    both([Categorical("x", **options)], {"x": train}, {"x": new})


def test_given_vocabularies_and_ranges():
    features = [
        Categorical("a", vocabulary=("Oslo", "Rome")),
        Categorical("b", vocabulary=(7, 5)),
        Categorical("c", size=9),
        Categorical("d", size=4),
    ]
    train = {"a": ["Rome", "Oslo"], "b": [5, 7], "c": [0, 8], "d": [1.0, np.nan]}
    new = {"a": ["Bonn", "Rome"], "b": [-1, 7], "c": [9, 2], "d": [4.0, np.nan]}
    assert both(features, train, new)["d"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("Int64", tf.int64), ("boolean", tf.float64), ("string", tf.string)], ids=str
)
def test_missing_cells_of_nullable_types(dtype, expected):
    train = pd.Series([1, 0, None] if dtype != "string" else ["1", "0", None], dtype=dtype)
    transform = FeatureTransform(Categorical("x")).fit(pd.DataFrame({"x": train}))
    assert transform.raw_signature()["x"].dtype == expected
    assert both([Categorical("x")], {"x": train}, {"x": train[::-1]})["x"].tolist() == [0, 2, 3]


@pytest.mark.parametrize("missing", [MISSING_INTEGER, -(2**63)])
def test_what_a_graph_cannot_refuse_is_unknown(missing):
    transform = FeatureTransform([Categorical("x", size=3), Categorical("y"), Numeric("z")])
    transform.fit({"x": [0, 1], "y": [1.0, 2.0], "z": [0, 1]})
    tensors = transform.encode_in_graph(
        {
            "x": tf.constant([-1, 3, 2, missing], tf.int64),
            "y": tf.constant([1.5, np.inf, 2.0, 1e30], tf.float64),
            "z": tf.constant([0, 1, 1, missing], tf.int64),
        }
    )
    assert tensors["x"].numpy().tolist() == [1, 1, 4, 0]
    assert tensors["y"].numpy().tolist() == [1, 1, 3, 1]
    np.testing.assert_array_equal(tensors["z"], [-1, 1, 1, 0])


TEXT_LISTS = ["a|b|a", "", None, "c||b", "a"]
NEW_TEXT_LISTS = ["c|a|c|b|z", "", None, "|", "z|y|a|a", "b"]


@pytest.mark.parametrize(
    "feature",
    [
        Sequence("x", length=3),
        Sequence("x", length=9, hash_buckets=6),
        Categorical("x", multi_hot=True),
        Categorical("x", multi_hot=True, length=2),
    ],
    ids=lambda f: f"{f.kind}-{f.length}",
)
def test_lists(feature):
    as_lists = lambda texts: [None if t is None else t.split("|") for t in texts]  # noqa: E731
    in_strings = both([feature], {"x": TEXT_LISTS}, {"x": NEW_TEXT_LISTS})["x"]
    in_lists = both([feature], {"x": as_lists(TEXT_LISTS)}, {"x": as_lists(NEW_TEXT_LISTS)})["x"]
    np.testing.assert_array_equal(in_strings, in_lists)


@pytest.mark.parametrize(
    ("train", "new"),
    [
        ([[1, 2], [2], [], None], [[BIG, 2], [], [1, 1, 2, 2], None]),
        ([[1.0, 2.0], [np.nan]], [[2.0, np.nan, 7.0], []]),
        ([[True, False], [True]], [[False], []]),
        ([["a"], ["b"]], [[], []]),
    ],
    ids=["integers", "floats", "booleans", "empty"],
)
def test_lists_of_numbers(train, new):
    both([Sequence("x", length=3), Categorical("set", column="x", multi_hot=True)], {"x": train}, {"x": new})


def test_ranges_and_shared_tables_between_separators():
    features = [
        Categorical("item", key="items"),
        Sequence("history", key="items", length=3),
        Sequence("range", column="history", size=50, length=2),
        Categorical("float", key="items"),
    ]
    train = {"item": [3, 1, 1], "history": ["3|4", "1", ""], "float": [np.nan, 3.0, 8.0]}
    both(features, train, {"item": [1, 3, 9], "history": ["1|3|49", "7|", "0"], "float": [8.0, np.nan, 5.0]})
    tensors = (
        FeatureTransform(features)
        .fit(train)
        .encode_in_graph(
            {
                "item": tf.constant([1], tf.int64),
                "history": tf.constant(["-1|x|99"]),
                "float": tf.constant([8.5], tf.float64),
            }
        )
    )
    assert tensors["range"].numpy().tolist() == [[1, 1]] and tensors["float"].numpy().tolist() == [1]


@pytest.mark.parametrize("normalization", ["standardize", "log", "quantile", None])
@pytest.mark.parametrize("values", [[-1.5, 0.0, 2.5, 1e6], [-3, 0, 4, 2**40], [True, False, True, True]], ids=str)
def test_numbers(normalization, values):
    features = [
        Numeric("x", normalization=normalization),
        Numeric("filled", column="x", normalization=normalization, missing="median"),
    ]
    both(features, {"x": values}, {"x": values[::-1]})


POLICIES = [(n, m) for n in ("standardize", "log", "quantile", None) for m in ("mean", "median", -2.0)]


@pytest.mark.parametrize(("normalization", "missing"), [*POLICIES, ("quantile", "bucket")])
def test_missing_numbers(normalization, missing):
    feature = Numeric("x", normalization=normalization, missing=missing, buckets=3)
    both([feature], {"x": [0.5, 7.0, np.nan, -3.0]}, {"x": [np.nan, np.inf, -np.inf, 0.5, 1e9, -1e9, 7.0]})
    both([feature], {"x": pd.array([5, 7, None], "Int64")}, {"x": pd.array([None, 6], "Int64")})


def test_encoded_features():
    features = [
        Encoded("vector", keras.layers.Dense(1), shape=(2,)),
        Encoded("tokens", keras.layers.Dense(1), shape=(None,), dtype="int32"),
        Encoded("text", keras.layers.Dense(1), dtype="string"),
        Encoded("number", keras.layers.Dense(1)),
        Numeric("same", column="number"),
    ]
    train = {"vector": [[1.0, 2.0]], "tokens": [[1, 2, 3]], "text": ["a"], "number": [3.5]}
    new = {"vector": [[1.0, 2.5], [0.0, 1.0]], "tokens": [[1, 2], [3, 4]], "text": ["b", None], "number": [1.5, 2.0]}
    both(features, train, new)
    signature = FeatureTransform(features).fit(train).raw_signature()
    assert signature["vector"].shape == (None, 2) and signature["vector"].dtype == tf.float32
    assert signature["tokens"].shape == (None, None) and signature["number"].dtype == tf.float64
    different = [Encoded("a", len, column="x", shape=(2,)), Encoded("b", len, column="x", shape=(2,), dtype="int32")]
    signature = FeatureTransform(different).fit({"x": [[1, 2]]}).raw_signature()
    assert signature["x"].shape == (None, None) and signature["x"].dtype == tf.int64


def test_raw_signature_follows_the_training_table():
    table = {"s": ["a"], "i": [1], "f": [1.0], "b": [True], "sep": ["a|b"], "li": [[1]], "lb": [[True]]}
    features = [Categorical(name) for name in ("s", "i", "f", "b")] + [Sequence(name) for name in ("sep", "li", "lb")]
    signature = FeatureTransform(features, BinaryTask("y")).fit({**table, "y": [1]}).raw_signature()
    assert {name: (spec.dtype.name, spec.shape.rank) for name, spec in signature.items()} == {
        "s": ("string", 1),
        "i": ("int64", 1),
        "f": ("float64", 1),
        "b": ("bool", 1),
        "sep": ("string", 1),
        "li": ("int64", 2),
        "lb": ("float64", 2),
    }


def test_raw_arrays_follow_the_signature():
    transform = FeatureTransform([Categorical("i"), Categorical("s"), Sequence("l")])
    transform.fit({"i": [1, 2], "s": ["a", "b"], "l": [["a"], ["b"]]})
    arrays = transform.raw_arrays({"i": [1.0, np.nan], "s": [None, None], "l": [None, None]})
    assert arrays["i"].tolist() == [1, MISSING_INTEGER] and arrays["s"].tolist() == ["", ""]
    assert arrays["l"].tolist() == [[""], [""]]
    flags = FeatureTransform(Categorical("x")).fit({"x": [True, False]})
    with pytest.raises(
        ValueError, match=r"`x` must not be missing, since no row of the training table was. Received: 1"
    ):
        flags.raw_arrays(pd.DataFrame({"x": pd.array([True, None], "boolean")}))
    with pytest.raises(ValueError, match="`x` must hold booleans, as in the table that feature 'x' was fitted on"):
        flags.raw_arrays({"x": ["a"]})


def test_the_graph_refuses_other_columns_and_types():
    transform = FeatureTransform([Categorical("x"), Numeric("y")]).fit({"x": [1, 2], "y": [0.5, 1.5]})
    with pytest.raises(ValueError, match=r"`raw` must hold the features' columns. Received without: \['y'\]"):
        transform.encode_in_graph({"x": tf.constant([1], tf.int64)})
    with pytest.raises(ValueError, match=r"`x` must be int64, as in the training table. Received: string"):
        transform.encode_in_graph({"x": tf.constant(["1"]), "y": tf.constant([1.0], tf.float64)})
    with pytest.raises(ValueError, match="`fit` must be called first"):
        FeatureTransform(Categorical("x")).raw_signature()


def test_a_module_saves_the_lookup_tables(tmp_path):
    transform = FeatureTransform(Categorical("x")).fit({"x": ["b", "a", "b"]})
    module = tf.Module()
    module.graph = transform.graph
    module.encode = tf.function(
        lambda x: module.graph({"x": x})["x"], input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert loaded.encode(tf.constant(["a", "b", "", "z"])).numpy().tolist() == [3, 2, 0, 1]


def test_an_empty_vocabulary_works():
    both([Categorical("x", min_count=5)], {"x": ["a", "b"]}, {"x": ["a", None]})


# fault 19, 34: both forms agree on every value, bad ones included
BAD_NUMBERS = [1.0, -0.0, np.nan, np.inf, -np.inf, 1e30, 30.5]


@pytest.mark.parametrize("train", [[1.0, 2.0, 4.0], [1.0, np.nan, 4.0], [1, 2, 40], [True, False, True]], ids=str)
@pytest.mark.parametrize("normalization", ["standardize", "log", None, "quantile"])
def test_numbers_agree_whatever_comes_later(train, normalization):
    new = [1.0, 0.0, np.nan] if isinstance(train[0], bool) else BAD_NUMBERS
    arrays = both([Numeric("x", normalization=normalization)], {"x": train}, {"x": new})
    assert all(np.isfinite(array).all() for array in arrays.values())
    has_indicator = np.isnan(train).any() and normalization != "quantile"
    assert ("x.missing" in arrays) == has_indicator
    if has_indicator:
        assert arrays["x.missing"].tolist() == [float(not np.isfinite(x)) for x in new]


# fault 34
@pytest.mark.parametrize("feature", [Categorical("x"), Numeric("x")], ids=lambda f: f.kind)
def test_what_was_boolean_stays_boolean_in_both_forms(feature):
    transform = FeatureTransform(feature).fit({"x": [True, False]})
    later = pd.DataFrame({"x": [1, 0, 2]})
    for form in (transform.encode, transform.raw_arrays):
        with pytest.raises(ValueError, match=r"`x` must hold booleans.*Received: 1 of 3 rows with \[2"):
            form(later)
    np.testing.assert_array_equal(
        *[both([feature], {"x": [True, False]}, {"x": x})["x"] for x in ([1, 0], [True, False])]
    )
