"""Vectors: what is learned of them, how missing ones travel, and what is refused."""

import time

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, table
from keras import ops

from mtl_zoo import FeatureTransform, SharedBottom, Vector
from mtl_zoo.layers import FeatureEmbedding

RNG = np.random.default_rng(0)
ROWS = RNG.normal(3.0, 7.0, (40, 5)).astype("float32")


def encode(feature, cells, new=None):
    transform = FeatureTransform(feature).fit({"v": cells})
    return transform.encode({"v": cells if new is None else new})


def test_it_is_standardised_by_the_rows_that_are_there():
    cells = [None, *ROWS, np.nan]
    found = encode(Vector("v"), cells)
    expected = (ROWS.astype("float64") - ROWS.mean(0, dtype="float64")) / ROWS.std(0, dtype="float64")
    np.testing.assert_allclose(found["v"][1:-1], expected, atol=1e-6)
    assert not found["v"][[0, -1]].any()
    assert found["v.missing"].tolist() == [1.0, *[0.0] * 40, 1.0]


def test_a_constant_dimension_is_zero_even_later():
    found = encode(Vector("v"), [[0.1, 1.0], [0.1, 3.0], [0.1, 2.0]], [[5.0, 2.0], [0.1, 3.0]])
    assert found["v"][:, 0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found["v"][1, 1], 1 / np.std([1, 3, 2]), rtol=1e-6)


def test_lengths_become_one_and_zeros_stay():
    found = encode(Vector("v", scaling="l2"), [*ROWS, np.zeros(5)])["v"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [*[1.0] * 40, 0.0], atol=1e-6)
    np.testing.assert_allclose(found[:-1], ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    "cells",
    [
        ROWS.tolist(),
        list(ROWS),
        [tuple(row) for row in ROWS.tolist()],
        ROWS,
        pd.Series(pa.array(ROWS.tolist(), pa.list_(pa.float32())), dtype=pd.ArrowDtype(pa.list_(pa.float32()))),
        pd.Series(pa.array(list(ROWS), pa.list_(pa.float32(), 5)), dtype=pd.ArrowDtype(pa.list_(pa.float32(), 5))),
        [row.astype("float16").astype("float64") for row in ROWS],
    ],
    ids=["lists", "arrays", "tuples", "matrix", "arrow lists", "fixed-size arrow lists", "doubles"],
)
def test_all_forms_of_a_column_are_read(cells):
    found = encode(Vector("v", scaling=None), cells)["v"]
    np.testing.assert_allclose(found, ROWS, rtol=1e-3)


def test_a_slice_of_fixed_size_lists_with_holes_is_read():
    array = pa.array([[1.0, 2.0], None, [3.0, 4.0], None, [5.0, 6.0]], pa.list_(pa.float32(), 2))
    whole = pa.table({"v": array})
    transform = FeatureTransform(Vector("v", scaling=None)).fit(whole)
    found = transform.encode(whole.slice(1, 3))
    assert found["v"].tolist() == [[0, 0], [3, 4], [0, 0]] and found["v.missing"].tolist() == [1, 0, 1]
    assert transform.encode({"v": [None, None]})["v.missing"].tolist() == [1, 1]
    assert transform.describe()[["distinct", "missing"]].values.tolist() == [[pd.NA, 2]]


def test_a_hundred_thousand_rows_take_no_seconds():
    cells = list(RNG.normal(size=(100_000, 64)).astype("float32"))
    frame = pd.DataFrame({"v": pd.Series(cells)})
    transform = FeatureTransform(Vector("v")).fit(frame.iloc[:1000])
    start = time.process_time()
    assert transform.encode(frame)["v"].shape == (100_000, 64)
    assert time.process_time() - start < 3


HOSTILE = [
    ([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]], r"`v` must hold vectors of 2 numbers.*2 of 3 rows, row 1: 1 of them; row 2"),
    ([[1.0, 2.0], []], r"must hold vectors of 2 numbers.*row 1: 0 of them"),
    ([[1.0, 2.0], [1.0, np.nan]], r"must hold vectors of finite numbers of 32 bits.*1 of 2 rows, row 1: nan"),
    ([[1.0, 2.0], [None, 1.0]], r"must hold vectors of finite numbers.*row 1: nan"),
    ([np.array([1.0, 2.0]), np.array([-np.inf, 1.0])], r"finite numbers of 32 bits.*row 1: -inf"),
    ([[1.0, 2.0], [1e300, 1.0]], r"finite numbers of 32 bits.*row 1: 1e\+300"),
    ([["a", "b"]] * 2, r"`v` must hold vectors: lists or arrays of numbers.*Received: lists of strings"),
    ([[True, False]] * 2, r"Received: lists of booleans"),
    ([[1.0, "a"]] * 2, r"`v` must hold lists of values of one type.*'float': 2, 'str': 2"),
    ([[[1.0], [2.0]]] * 2, r"`v` must hold vectors.*Received: lists of lists"),
    ([0.5, 0.25], r"`v` must hold vectors.*Received: numbers, dtype float64"),
    (["0.5 1.0"] * 2, r"`v` must hold vectors.*Received: strings"),
    ([[], []], r"`v` must hold a value to fit"),
    ([None, None], r"`v` must hold a value to fit"),
]


@pytest.mark.parametrize(("cells", "message"), HOSTILE, ids=[m[:40] for _, m in HOSTILE])
def test_what_is_refused_is_named_by_row(cells, message):
    with pytest.raises(ValueError, match=message):
        encode(Vector("v"), cells)


def test_another_width_is_refused_later_too():
    transform = FeatureTransform(Vector("v")).fit({"v": [[1.0, 2.0], [2.0, 1.0]]})
    with pytest.raises(ValueError, match=r"vectors of 2 numbers.*row 0: 3 of them"):
        transform.encode({"v": [[1.0, 2.0, 3.0]]})
    with pytest.raises(ValueError, match=r"vectors of 3 numbers.*2 of 2 rows"):
        FeatureTransform(Vector("v", 3)).fit({"v": [[1.0, 2.0], [2.0, 1.0]]})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 0}, ValueError, "`dim` must be a whole number >= 1"),
        ({"scaling": "minmax"}, ValueError, "`scaling` must be one of"),
        ({"encoder": "dense"}, TypeError, "`encoder` must be a width, a Keras layer or None"),
        ({"encoder": True}, TypeError, "`encoder` must be a width"),
        ({"encoder": 0}, ValueError, "`encoder` must be a whole number >= 1"),
        ({"encoder": keras.layers.Dense}, TypeError, "`encoder` must be a width"),
        ({"key": "a b"}, ValueError, "`key` may hold letters"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Vector("v", **arguments)


def test_a_model_needs_the_width():
    with pytest.raises(ValueError, match=r"Received without: \['v'\]"):
        FeatureEmbedding([Vector("v")])


@pytest.mark.tensorflow
def test_a_graph_takes_what_is_not_finite_for_missing():
    transform = FeatureTransform(Vector("v", scaling="l2")).fit({"v": [[3.0, 4.0], None]})
    found = transform.encode_in_graph({"v": np.array([[3, 4], [np.nan, np.nan], [np.inf, 1]], "float32")})
    np.testing.assert_allclose(found["v"], [[0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)
    assert found["v.missing"].numpy().tolist() == [0, 1, 1]


def test_features_of_a_key_share_scale_indicator_and_encoder():
    features = [Vector("a", key="title", encoder=3), Vector("b", key="title", encoder=3)]
    frame = {"a": [[0.0], [2.0]], "b": [[4.0], None]}
    transform = FeatureTransform(features).fit(frame)
    x = transform.encode(frame)
    np.testing.assert_allclose(x["a"][:, 0], (np.array([0, 2]) - 2) / np.std([0, 2, 4]), rtol=1e-6)
    assert list(x) == ["a", "a.missing", "b", "b.missing"]
    layer = FeatureEmbedding(transform.features)
    layer(x)
    assert [w.shape for w in layer.trainable_weights] == [(2, 3), (3,)]
    with pytest.raises(ValueError, match=r"must hold vectors of one width.*Received: 2 beside 1 of 'a'"):
        FeatureTransform(features).fit({"a": [[0.0], [2.0]], "b": [[4.0, 1.0], None]})
    with pytest.raises(ValueError, match="`scaling` must be the same for features that share the encoder 'title'"):
        FeatureTransform([features[0], Vector("b", key="title", scaling="l2")])


def test_an_encoder_that_is_built_gives_its_weights():
    encoder = keras.layers.Dense(3)
    encoder.build((None, 2))
    feature = Vector("v", 2, encoder=encoder)
    layer = FeatureEmbedding([feature])
    x = np.array([[0.5, -1.0]], "float32")
    np.testing.assert_allclose(layer({"v": x})["v"], x @ ops.convert_to_numpy(encoder.kernel), rtol=1e-5)
    again = FeatureEmbedding([feature])
    again({"v": x})
    assert again.trainable_weights[0] is not layer.trainable_weights[0]


@pytest.mark.tensorflow
def test_a_model_learns_from_vectors_and_is_saved(tmp_path):
    x = RNG.normal(size=(400, 6))
    frame = pd.DataFrame({"v": list(x), "click": (x[:, 0] > 0).astype(int)})
    model = SharedBottom(FeatureTransform(Vector("v", encoder=4), CLICK).fit(frame), bottom_units=(8,), tower_units=())
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(frame, batch_size=50, epochs=4, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(frame, verbose=0)["click"], model.predict(frame, verbose=0)["click"])


def test_infer_makes_one_of_lists_of_numbers_of_one_length():
    frame = table(v=[[0.5, 1.5], [0.25, 2.0], None, [1.0, 2.0]])
    transform = FeatureTransform.infer(frame, CLICK)
    assert transform.specs == (Vector("v"),)
    assert transform.describe()["rule"].tolist() == ["lists of 2 numbers each"]
