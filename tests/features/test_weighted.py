"""Values with weights: pairs, maps and strings, what is refused, and the weighted sums of an embedding."""

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import CLICK, table
from keras import ops

from mtl_zoo import Categorical, FeatureTransform, Sequence, SharedBottom, export_serving
from mtl_zoo.features import TableStream
from mtl_zoo.layers import FeatureEmbedding

PAIRS = [[("a", 0.5), ("b", -2)], [], None, [("c", 3), ("a", None)], [("b", 1.0)], [("a", 1)]]
EXPECTED = [[0.5, -2.0], [0, 0], [0, 0], [3, 1], [1, 0], [1, 0]]
FEATURE = Categorical("x", multi_hot=True, weights=True, vocabulary=("a", "b", "c"))


def encode(feature, cells, new=None):
    transform = FeatureTransform(feature).fit({"x": cells})
    return transform.encode({"x": cells if new is None else new})


def arrow_map():
    kind = pa.map_(pa.string(), pa.float64())
    cells = [None if pairs is None else [(v, 1.0 if w is None else w) for v, w in pairs] for pairs in PAIRS]
    return pd.Series(pa.array(cells, kind), dtype=pd.ArrowDtype(kind))


@pytest.mark.parametrize(
    "cells",
    [
        pd.Series(PAIRS),
        [None if pairs is None else {v: 1.0 if w is None else w for v, w in pairs} for pairs in PAIRS],
        ["a:0.5|b:-2", "", None, "c:3|a", "b:1e0", "a:"],
        arrow_map(),
        pa.table({"x": arrow_map()})["x"].to_pandas(),
    ],
    ids=["pairs", "maps", "strings", "arrow map", "map in pandas"],
)
def test_all_forms_give_ids_and_weights(cells):
    found = encode(FEATURE, cells)
    assert found["x"].tolist() == [[2, 3], [0, 0], [0, 0], [4, 2], [3, 0], [2, 0]]
    assert found["x.weights"].tolist() == EXPECTED and found["x.weights"].dtype == np.float32


def test_whole_numbers_are_values_too():
    found = encode(
        Sequence("x", size=9, length=2, weights=True), [[(5, 2), (7, 1), (8, 3.5)], [(5.0, 1), (np.int64(0), 0)]]
    )
    assert found["x"].tolist() == [[9, 10], [7, 2]] and found["x.weights"].tolist() == [[1, 3.5], [1, 0]]
    plain = encode(Sequence("x", length=3, weights=True), [["a", "b"], ["b"]])
    assert plain["x.weights"].tolist() == [[1, 1, 0], [1, 0, 0]]


def test_a_repeated_value_counts_as_often_as_it_stands():
    found = encode(FEATURE, ["a:1|a:2|b:3"])
    assert found["x"].tolist() == [[2, 2, 3]] and found["x.weights"].tolist() == [[1, 2, 3]]


def test_a_colon_within_a_value_is_its_own():
    found = encode(Categorical("x", multi_hot=True, weights=True), ["sci:fi:2|drama:1", "drama:1"])
    assert found["x.weights"].tolist() == [[2, 1], [1, 0]] and found["x"].tolist() == [[3, 2], [2, 0]]


HOSTILE = [
    (["a:1|b:much", "a:1"], r"`x` must hold a number after the last ':' of a value. Received: 'b:much' in row 0"),
    (["a:1", "a:nan"], r"after the last ':'.*'a:nan' in row 1"),
    (["a:1", "a:inf"], r"after the last ':'.*'a:inf' in row 1"),
    (["a:1", "a:1e300"], r"must hold finite weights of 32 bits. Received: 1 others, row 1: 'a' of weight 1e\+300"),
    ([[("a", 1.0)], [("a", np.nan)]], r"finite weights of 32 bits.*row 1: 'a' of weight nan"),
    ([[("a", "1")], [("b", "2")]], r"must hold numbers as weights. Received: '1' in row 0"),
    ([{"a": True}], r"must hold numbers as weights. Received: True in row 0"),
    ([[(0.5, 1)], [("b", 2)]], r"a string or a whole number and its weight. Received: 0.5 in row 0"),
    ([{"a": 1}, "b:1"], r"must hold pairs or maps in all rows. Received: 'b:1' in row 1"),
    ([1, 2], r"`x` must hold values with weights.*Received: whole numbers"),
    ([{}, {}], r"`x` must hold a value to fit"),
]


@pytest.mark.parametrize(("cells", "message"), HOSTILE, ids=[m[:40] for _, m in HOSTILE])
def test_what_is_refused_is_named_by_row(cells, message):
    with pytest.raises(ValueError, match=message):
        encode(Categorical("x", multi_hot=True, weights=True), pd.Series(cells))


def test_weights_need_several_values():
    with pytest.raises(ValueError, match="`weights` needs multi_hot=True"):
        Categorical("x", weights=True)
    with pytest.raises(ValueError, match=r"`x` must not hold maps, or pairs.*weights=True"):
        encode(Categorical("x", multi_hot=True), pd.Series(PAIRS))
    with pytest.warns(UserWarning, match="Say weights=True"):
        encode(Categorical("x", multi_hot=True), ["a:1|b:2", "a:3"])


def test_a_separator_within_a_value_cannot_be_exported():
    transform = FeatureTransform(Categorical("x", multi_hot=True, weights=True)).fit({"x": [{"a|b": 1.0}]})
    with pytest.raises(ValueError, match=r"`x` must hold values without '\|' in them.*'a\|b'"):
        transform.raw_arrays({"x": [{"a|b": 1.0}]})


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
def test_embeddings_are_multiplied_before_they_are_pooled(pooling):
    feature = Sequence("x", size=3, dim=4, length=3, pooling=pooling, weights=True)
    layer = FeatureEmbedding([feature])
    ids = np.array([[2, 4, 1], [3, 0, 0], [0, 0, 0]], "int32")
    weights = np.array([[0.5, -2.0, 3.0], [0.0, 7.0, 0.0], [0, 0, 0]], "float32")
    found = ops.convert_to_numpy(layer({"x": ids, "x.weights": weights})["x"])
    rows = ops.convert_to_numpy(layer.tables[0])[ids] * weights[..., None]
    real = ids != 0
    expected = np.zeros((3, 4))
    for i in range(2):
        kept = rows[i][real[i]]
        total = np.abs(weights[i][real[i]]).sum()
        expected[i] = {"sum": kept.sum(0), "mean": kept.sum(0) / (total or 1), "max": kept.max(0)}[pooling]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.tensorflow
def test_a_graph_takes_the_string():
    transform = FeatureTransform(FEATURE).fit({"x": PAIRS})
    raw = transform.raw_arrays({"x": PAIRS})
    assert raw["x"].tolist() == ["a:0.5|b:-2.0", "", "", "c:3.0|a:1.0", "b:1.0", "a:1.0"]
    found = transform.encode_in_graph(raw)
    assert found["x.weights"].numpy().tolist() == EXPECTED
    odd = transform.encode_in_graph({"x": np.array(["a:much|b", "a:1e999", ":4|c:2", "zz:2"], object)})
    assert odd["x"].numpy().tolist() == [[2, 3], [2, 0], [4, 0], [1, 0]]
    assert odd["x.weights"].numpy().tolist() == [[1, 1], [1, 0], [2, 0], [2, 0]]


@pytest.mark.tensorflow
def test_a_model_of_weights_is_streamed_saved_and_exported(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    texts = [f"a:{w:.3f}|b:1" for w in rng.normal(size=200)]
    frame = table(x=texts).assign(click=[int(float(text[2:].split("|")[0]) > 0) for text in texts])
    feature = Categorical("x", dim=4, multi_hot=True, weights=True)
    model = SharedBottom(FeatureTransform(feature, CLICK).fit(frame), bottom_units=(8,), tower_units=())
    model.compile(keras.optimizers.Adam(0.05))
    history = model.fit(frame, batch_size=50, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for inputs, _ in TableStream(tmp_path / "rows.csv", model.transform).batches(batch_size=200):
        np.testing.assert_array_equal(inputs["x.weights"].numpy(), model.transform.encode(frame)["x.weights"])
    scores = model.predict(frame, verbose=0)["click"].ravel()
    export_serving(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(np.ravel(served.score({"x": tf.constant(texts)})["click"]), scores, atol=1e-6)


def test_lists_of_lists_are_read_as_one_in_their_order():
    table = pd.DataFrame({"x": [[[5, 7], [9]], [[5], []], None, [[7]]]})
    transform = FeatureTransform(Sequence("x", length=2, nested=True)).fit(table)
    assert transform.values_of("x") == ("5", "7", "9")
    assert transform.encode(table)["x"].tolist() == [[3, 4], [2, 0], [0, 0], [3, 0]]
    assert transform.raw_arrays(table)["x"].tolist() == ["5|7|9", "5", "", "7"]
    assert transform.encode({"x": [[[8, 7]], [[7, 5]]]})["x"].tolist() == [[1, 3], [3, 2]]
    assert transform.unseen["x"].values == ("8",)
    once = FeatureTransform(Categorical("x", multi_hot=True, nested=True)).fit({"x": [[[1, 2], [2, 1]], [[3]]]})
    assert once.encode({"x": [[[2], [2, 1]]]})["x"].tolist() == [[3, 2]]
    assert "lists of lists as one" in once.describe()["rule"][0]


def test_lists_of_lists_that_are_not_asked_for_are_refused():
    table = pd.DataFrame({"x": [[[1, 2]], [[3]]]})
    with pytest.raises(ValueError, match="Received: lists of lists. Say nested=True"):
        FeatureTransform(Sequence("x")).fit(table)
    for wrong in ({"multi_hot": True, "weights": True}, {}):
        with pytest.raises(ValueError, match="`nested` needs lists of values without weights"):
            Categorical("x", nested=True, **wrong)
    with pytest.raises(ValueError, match=r"`x` must hold values without '\|'"):
        FeatureTransform(Sequence("x", nested=True)).fit({"x": [[["a|b"]]]}).raw_arrays({"x": [[["a|b"]]]})
    with pytest.raises(ValueError, match="`x` must hold whole numbers or strings"):
        FeatureTransform(Sequence("x", nested=True)).fit({"x": [[[1.5]]]})
