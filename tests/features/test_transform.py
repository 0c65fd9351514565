"""FeatureTransform in pandas: ids, numbers, batches, saving."""

import copy
import json
import logging
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, encoded, table

from mtl_zoo import Categorical, Encoded, FeatureTransform, MulticlassTask, Numeric, Sequence

BIG = 2**53 + 1  # float64 cannot hold it


def test_ids_are_missing_unknown_then_by_count_and_value():
    train = pd.Series(["b", "c", "a", "c", None, ""], dtype=object)
    assert encoded(Categorical("x"), train).tolist() == [4, 2, 3, 2, 0, 0]
    assert encoded(Categorical("x"), train, ["z", "a", None]).tolist() == [1, 3, 0]
    transform = FeatureTransform(Categorical("x")).fit(pd.DataFrame({"x": train}))
    assert transform.features[0].num_ids == 5
    assert transform.encode({"x": ["a"]})["x"].dtype == np.int32


def test_min_count_makes_rare_values_unknown():
    assert encoded(Categorical("x", min_count=2), ["a", "b", "a"]).tolist() == [2, 1, 2]
    assert encoded(Categorical("x", min_count=9), ["a", "b", "a"]).tolist() == [1, 1, 1]


def test_max_ids_keeps_the_most_frequent_values():
    train = ["d", "b", "a", "c", "b", "d", "a", "d"]  # d three times, a and b twice, c once
    assert encoded(Categorical("x", max_ids=2), train).tolist() == [2, 1, 3, 1, 1, 2, 3, 2]
    assert encoded(Categorical("x", max_ids=9), train).tolist() == encoded(Categorical("x"), train).tolist()
    assert encoded(Categorical("x", max_ids=3, min_count=3), train, ["d", "a"]).tolist() == [2, 1]
    assert encoded(Categorical("x", max_ids=1), [30, 4, 30, 4, 200]).tolist() == [1, 2, 1, 2, 1]


def test_max_ids_bounds_a_shared_table_and_survives_saving(tmp_path):
    features = [Categorical("item", key="items", max_ids=1), Sequence("history", key="items", length=3, max_ids=1)]
    transform = FeatureTransform(features).fit({"item": [3, 1, 5], "history": ["3|4", "1", "1"]})
    assert transform.encode({"item": [1, 3, 4], "history": ["1|3|4", "9", ""]})["history"].tolist() == [
        [2, 1, 1],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert {f.num_ids for f in transform.features} == {3}
    assert transform.describe()["rule"].tolist() == ["learned vocabulary, min_count=1, max_ids=1"] * 2
    transform.save(tmp_path / "t")
    loaded = FeatureTransform.load(tmp_path / "t")
    assert loaded.features == transform.features
    assert loaded.encode({"item": [1, 3], "history": ["1", "3"]})["item"].tolist() == [2, 1]
    features = [Categorical("item", key="items", max_ids=1), Categorical("last", key="items")]
    with pytest.raises(ValueError, match="`max_ids` must be the same for features that share the table 'items'"):
        FeatureTransform(features).fit({"item": [1, 2], "last": [1, 2]})


@pytest.mark.parametrize(
    "dtype", [None, object, "string", "string[pyarrow]", "category", pd.ArrowDtype(pa.string())], ids=str
)
def test_string_types_are_one(dtype):
    train = pd.Series(["a", None, "b", "", "b"])
    train = train if dtype is None else train.astype(dtype)
    assert encoded(Categorical("x"), train).tolist() == [3, 0, 2, 0, 2]


@pytest.mark.parametrize(
    "dtype", ["int64", "uint8", "float32", "Int16", "int32[pyarrow]", "category", "Sparse[int64]", object], ids=str
)
def test_whole_number_types_are_one(dtype):
    new = pd.Series([7, 5, 6]).astype(dtype)
    assert encoded(Categorical("x"), [5, 7, 7], new).tolist() == [2, 3, 1]


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", object, pd.CategoricalDtype([BIG, BIG + 1])], ids=str)
def test_ids_above_2_31_are_exact_beside_missing_ones(dtype):
    train = pd.Series([BIG, None, BIG + 1], dtype=dtype)
    assert encoded(Categorical("x"), train, pd.Series([BIG + 1, None, BIG, BIG + 2], dtype="Int64")).tolist() == [
        3, 0, 2, 1,
    ]  # fmt: skip


def test_arrow_tables_keep_large_ids():
    train = pa.table({"x": pa.array([BIG, None, BIG + 1])})
    transform = FeatureTransform(Categorical("x")).fit(train)
    assert transform.encode(train)["x"].tolist() == [2, 0, 3]


@pytest.mark.parametrize("dtype", [bool, "boolean", "bool[pyarrow]", object], ids=str)
def test_boolean_types_are_one(dtype):
    assert encoded(Categorical("x"), pd.Series([True, False, True]).astype(dtype)).tolist() == [2, 3, 2]


def test_whole_floats_are_whole_numbers():
    assert encoded(Categorical("x"), [1.0, np.nan, 2.0, 2.0], [2, 1, 3, 1]).tolist() == [2, 3, 1, 3]
    assert encoded(Categorical("x", hash_buckets=50), [1.0, 2.0]).tolist() == (
        encoded(Categorical("x", hash_buckets=50), [1, 2]).tolist()
    )


def test_given_vocabulary_keeps_its_order():
    assert encoded(Categorical("x", vocabulary=("b", "a")), ["a", "b", "c"]).tolist() == [3, 2, 1]
    assert encoded(Categorical("x", vocabulary=(30, 10)), [10, 30, 20]).tolist() == [3, 2, 1]


def test_integer_range():
    assert encoded(Categorical("x", size=3), [0, 2, 1], [2, 5, 0]).tolist() == [4, 1, 2]
    assert encoded(Sequence("x", size=10, length=3), ["3|9", "0", ""], ["03|12", "7", ""]).tolist() == [
        [5, 1, 0],
        [9, 0, 0],
        [0, 0, 0],
    ]


def test_hash_buckets_are_stable_and_never_unknown():
    ids = encoded(Categorical("x", hash_buckets=10), ["a", "b", None], ["a", "zzz", None])
    assert ids.tolist() == [11, 2, 0]
    assert encoded(Categorical("x", hash_buckets=10), [None, "b"], pd.Series([None, None], dtype=object)).tolist() == [
        0,
        0,
    ]


def test_sequences_keep_the_last_values_and_drop_missing_ones():
    cells = [["a", "b", "a"], [], None, ["b", None, "", "a"], ["z"]]
    ids = encoded(Sequence("x", length=2), cells[:4], cells)
    assert ids.tolist() == [[3, 2], [0, 0], [0, 0], [3, 2], [1, 0]]
    texts = ["a|b|a", "", None, "b||a", "z"]
    assert encoded(Sequence("x", length=2), texts[:4], texts).tolist() == ids.tolist()


@pytest.mark.parametrize("cells", [[(1, 2), (3,)], [np.array([1, 2]), np.array([3])], [[1.0, 2.0], [3.0]]], ids=str)
def test_cells_of_lists_tuples_and_arrays(cells):
    assert encoded(Sequence("x", length=2), cells).tolist() == [[2, 3], [4, 0]]


def test_arrow_lists_and_dicts_of_arrays():
    transform = FeatureTransform(Sequence("x", length=2)).fit(pa.table({"x": [[1, 2], [3], None]}))
    assert transform.encode({"x": np.array([[3, 1]])})["x"].tolist() == [[4, 2]]
    lists = pd.Series([[1, 2], [3]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))
    assert transform.encode(pd.DataFrame({"x": lists}))["x"].tolist() == [[2, 3], [4, 0]]


def test_multi_hot_is_a_set():
    feature = Categorical("x", multi_hot=True, separator=";")
    transform = FeatureTransform(feature).fit({"x": ["a;b;a", "c;b;a", ""]})
    assert transform.features[0].length == 3
    ids = transform.encode({"x": ["b;b;a", "z;y;a", None, "a;b;c;d"]})["x"]
    assert ids.tolist() == [[3, 2, 0], [1, 2, 0], [0, 0, 0], [2, 3, 4]]


def test_multi_hot_longer_than_length_is_reported(caplog):
    ids = encoded(Categorical("x", multi_hot=True, length=1), [["a", "b"], ["a"]])
    assert ids.tolist() == [[2], [2]]
    assert "1 of 2 rows hold more than length=1 values (up to 2)" in caplog.text


def test_features_with_one_key_share_a_vocabulary():
    features = [Categorical("item", key="items"), Sequence("history", key="items", length=3)]
    transform = FeatureTransform(features).fit({"item": [3, 1, 1], "history": ["3|4", "1", ""]})
    arrays = transform.encode({"item": [1, 3, 4], "history": ["1|3|4", "9", ""]})
    assert arrays["item"].tolist() == [2, 3, 4]
    assert arrays["history"].tolist() == [[2, 3, 4], [1, 0, 0], [0, 0, 0]]
    assert {f.num_ids for f in transform.features} == {5}


def test_given_numbers_match_numbers_between_separators():
    features = [
        Categorical("item", key="items", vocabulary=(5, 6)),
        Sequence("history", key="items", vocabulary=(5, 6), length=2),
    ]
    transform = FeatureTransform(features).fit({"item": [5, 6], "history": ["6|5", "7"]})
    assert transform.encode({"item": [6, 5], "history": ["6|5", "7"]})["history"].tolist() == [[3, 2], [1, 0]]


def test_numbers():
    x = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(encoded(Numeric("x"), x), (x - x.mean()) / x.std(), rtol=1e-6)
    z = np.sign(x - 2) * np.log1p(abs(x - 2))
    np.testing.assert_allclose(encoded(Numeric("x", normalization="log"), x - 2), (z - z.mean()) / z.std(), rtol=1e-6)
    assert encoded(Numeric("x", normalization=None), [True, False]).tolist() == [1, 0]
    assert encoded(Numeric("x"), [0.1, 0.1, 0.1]).tolist() == [0, 0, 0]
    assert encoded(Numeric("x", normalization=None), pd.Series([1, 2], dtype="category")).tolist() == [1, 2]
    assert encoded(Numeric("x"), x).dtype == np.float32


@pytest.mark.parametrize(("policy", "value"), [("mean", 3.0), ("median", 2.0), (7, 7.0)])
def test_missing_numbers(policy, value):
    feature = Numeric("x", normalization=None, missing=policy)
    assert encoded(feature, [1.0, 2.0, 6.0, np.nan, np.inf]).tolist() == [1, 2, 6, value, value]
    assert encoded(feature, [1.0, 2.0, 6.0], pd.Series([None, 4], dtype="Int64")).tolist() == [value, 4]
    assert encoded(feature, [1, 2, 6], pd.Series([None], dtype=object)).tolist() == [value]


def test_quantile_buckets():
    feature = Numeric("x", normalization="quantile", buckets=4, missing="bucket")
    ids = encoded(feature, np.arange(8.0), [-9.0, 0.0, 2.0, 4.0, 6.0, 99.0, np.nan])
    assert ids.tolist() == [2, 2, 3, 4, 5, 5, 0]
    assert ids.dtype == np.int32
    assert encoded(Numeric("x", normalization="quantile", missing=0.0), [0.0, 1.0, np.nan]).tolist()[2] == 2
    assert encoded(Numeric("x", normalization="quantile"), [3.0, 3.0]).tolist() == [3, 3]


def test_encoded_features_pass_through():
    dense = keras.layers.Dense(1)
    vectors = encoded(Encoded("x", dense, shape=(2,)), [[1.0, 2.0], [3.0, 4.0]])
    assert vectors.dtype == np.float32 and vectors.tolist() == [[1, 2], [3, 4]]
    ids = encoded(Encoded("x", dense, shape=(None,), dtype="int32"), [[1, 2], [3, 4]])
    assert ids.dtype == np.int32 and ids.shape == (2, 2)
    assert encoded(Encoded("x", dense, dtype="string"), ["a", None, ""]).tolist() == ["a", "", ""]
    assert encoded(Encoded("x", dense, shape=(2,), dtype="string"), [["a", None], ["b", "c"]]).tolist() == [
        ["a", ""],
        ["b", "c"],
    ]
    assert encoded(Encoded("x", dense, dtype="int32"), [1, 2]).tolist() == [1, 2]


def test_unseen_values_are_counted_and_logged_once(caplog):
    transform = FeatureTransform([Categorical("a"), Categorical("b", size=5), Sequence("c", length=2)])
    transform.fit({"a": ["x", "y"], "b": [0, 1], "c": ["u|v", "u"]})
    transform.encode({"a": ["x", "q", "q", None], "b": [0, 1, 2, 9], "c": ["u|w", "w", "", "u"]})
    assert len(caplog.records) == 1
    assert "a: 2 values (50.00%), for example ['q']; b: 1 values (25.00%), for example [9]" in caplog.text
    assert transform.unseen["a"].count == 2 and transform.unseen["a"].values == ("q",)
    assert transform.unseen["c"].count == 2
    transform.encode({"a": ["x"], "b": [0], "c": ["u"]})
    assert transform.unseen == {}


# Whole transforms


def everything():
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "user": rng.integers(0, 9, n) + BIG,
            "city": rng.choice(["Rome", "Oslo", None], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 80, n)),
            "history": ["|".join(map(str, rng.integers(0, 9, k))) for k in rng.integers(0, 5, n)],
            "vector": list(rng.normal(size=(n, 2))),
            "click": rng.integers(0, 2, n),
            "grade": rng.choice(["a", "b"], n),
            "w": rng.random(n),
        }
    )
    features = [
        Categorical("user"),
        Categorical("city", vocabulary=("Oslo", "Rome"), pretrained=np.ones((2, 16)), key="places"),
        Categorical("city_hash", column="city", hash_buckets=5),
        Numeric("age", missing="median"),
        Numeric("age_bucket", column="age", normalization="quantile", missing="bucket"),
        Sequence("history", size=9, length=4),
        Categorical("set", column="history", multi_hot=True),
        Encoded("vector", keras.layers.Dense(3, name="encoder"), shape=(2,)),
    ]
    return FeatureTransform(features, [CLICK, MulticlassTask("grade", classes=("a", "b"))], sample_weight="w"), frame


def test_saving_is_exact(tmp_path):
    transform, frame = everything()
    transform.fit(frame).save(tmp_path / "deep" / "transform")
    transform.save(tmp_path / "deep" / "transform")  # over itself
    files = sorted(path.name for path in (tmp_path / "deep" / "transform").iterdir())
    assert {Path(name).suffix for name in files} == {".json", ".npy", ".parquet"} and "transform.json" in files
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["transform"]
    loaded = FeatureTransform.load(tmp_path / "deep" / "transform")
    assert loaded.features == transform.features and loaded.tasks == transform.tasks
    np.testing.assert_array_equal(loaded.features[1].pretrained, np.ones((2, 16)))
    for name, array in transform.encode(frame).items():
        np.testing.assert_array_equal(loaded.encode(frame)[name], array)
    np.testing.assert_array_equal(loaded.encode_weights(frame), transform.encode_weights(frame))
    pd.testing.assert_frame_equal(loaded.describe(), transform.describe())
    refitted = loaded.fit(frame)
    np.testing.assert_array_equal(refitted.encode(frame)["set"], transform.encode(frame)["set"])


def test_saving_refuses(tmp_path):
    transform, frame = everything()
    with pytest.raises(ValueError, match="`fit` must be called first"):
        transform.save(tmp_path / "a")
    transform.fit(frame)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`folder` must be a folder, not a file"):
        transform.save(tmp_path / "file")
    with pytest.raises(ValueError, match="`folder` must be new, empty, or hold a transform"):
        transform.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold a transform \(transform.json\)"):
        FeatureTransform.load(tmp_path)
    transform.save(tmp_path / "t")
    meta = tmp_path / "t" / "transform.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="holds a transform of format 99, written by a newer version of mtl_zoo"):
        FeatureTransform.load(tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "t"]


def test_a_specs_plain_data_is_asked_for(tmp_path):
    transform = FeatureTransform(Numeric("x"), MulticlassTask("y", classes=(1, 2))).fit({"x": [1, 2], "y": [1, 2]})
    transform._notes = [{"name": {1}}]
    with pytest.raises(TypeError, match="A transform's specs must be plain data"):
        transform.save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_keeps_the_old_folder(tmp_path, monkeypatch):
    transform = FeatureTransform(Categorical("x")).fit({"x": ["a"]})
    transform.save(tmp_path / "t")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="disk full"):
        FeatureTransform(Categorical("x")).fit({"x": ["b"]}).save(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert FeatureTransform.load(tmp_path / "t").encode({"x": ["a"]})["x"].tolist() == [2]


def test_large_vocabularies_are_quick_and_no_json(tmp_path):
    values = [f"value {i}" for i in range(200_000)]
    transform = FeatureTransform(Categorical("x")).fit({"x": values})
    start = time.perf_counter()
    transform.save(tmp_path / "t")
    loaded = FeatureTransform.load(tmp_path / "t")
    assert time.perf_counter() - start < 5
    assert (tmp_path / "t" / "transform.json").stat().st_size < 5000
    np.testing.assert_array_equal(loaded.encode({"x": values})["x"], transform.encode({"x": values})["x"])


def test_describe():
    transform, frame = everything()
    before = transform.describe()
    assert before["distinct"].isna().all()
    after = transform.fit(frame).describe().set_index("name")
    assert list(after.columns) == ["column", "kind", "rule", "distinct", "missing"]
    assert after.loc["city", "rule"] == "vocabulary of 2" and after.loc["city", "distinct"] == 2
    assert after.loc["city", "missing"] == frame["city"].isna().sum()
    assert after.loc["age", "missing"] == frame["age"].isna().sum()
    assert after.loc["history", "missing"] == (frame["history"] == "").sum()
    assert after.loc["vector", "rule"] == "float32 (2,)"
    assert after.loc["city_hash", "rule"] == "hash_buckets=5"


def test_batches_keep_rows_together():
    transform, frame = everything()
    transform.fit(frame)
    seen = 0
    for inputs, labels, weights in transform.batches(frame, batch_size=32, shuffle=True, seed=1):
        seen += len(weights)
        assert set(inputs) == {f.name for f in transform.features} and set(labels) == {"click", "grade"}
    assert seen == len(frame)
    first = next(iter(transform.batches(frame.drop(columns=["click", "grade", "w"]), labels=False)))
    np.testing.assert_array_equal(first["user"], transform.encode(frame)["user"])


def test_copies_encode_alike():
    transform, frame = everything()
    transform.fit(frame)
    assert transform.graph is transform.graph
    np.testing.assert_array_equal(copy.deepcopy(transform).encode(frame)["user"], transform.encode(frame)["user"])
    assert repr(transform) == "FeatureTransform(8 features, 2 tasks, fitted)"


def test_a_million_cells_are_quick():
    rng = np.random.default_rng(0)
    n = 100_000
    frame = pd.DataFrame({f"c{i}": rng.integers(0, 10_000, n) for i in range(5)})
    frame = frame.assign(**{f"s{i}": rng.integers(0, 10_000, n).astype(str) for i in range(5)})
    transform = FeatureTransform([Categorical(name) for name in frame.columns])
    start = time.perf_counter()
    transform.fit(frame).encode(frame)
    assert time.perf_counter() - start < 5


@pytest.fixture(autouse=True)
def warnings_are_captured(caplog):
    caplog.set_level(logging.WARNING, logger="mtl_zoo")


# fault 1: a model owns its transform
def test_fitting_a_transform_again_does_not_touch_a_frozen_copy():
    transform = FeatureTransform([Categorical("user")], CLICK).fit(table(user=["a", "b"]))
    frozen = transform.frozen()
    before = frozen.encode({"user": ["a", "b"]})["user"]
    transform.fit(table(user=["c", "b", "b", "a"]))
    np.testing.assert_array_equal(frozen.encode({"user": ["a", "b"]})["user"], before)
    assert transform.encode({"user": ["a"]})["user"].tolist() != before[:1].tolist()
    with pytest.raises(ValueError, match="`fit` must not be called on the transform of a model"):
        frozen.fit(table(user=["a"]))
    assert frozen.is_fitted and frozen.specs == transform.specs


# fault 14: weights beside values are not silently part of the values
def test_values_with_weights_are_warned_of():
    with pytest.warns(UserWarning, match=r"`x` seems to hold values with weights.*\['a:0.5', 'b:2'\]"):
        FeatureTransform(Categorical("x", multi_hot=True)).fit({"x": ["a:0.5|b:2", "b:2"]})
