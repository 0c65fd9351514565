"""`predict` over many rows: one trace, the rows' order, tables piece by piece."""

import logging

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from keras import ops
from toys import build, inputs

from mtl_zoo import BinaryTask, Categorical, Encoded, FeatureTransform, Numeric, Sequence, create_model
from mtl_zoo.models import _predict

pytestmark = pytest.mark.tensorflow


def reference(model, x):
    """Scores by the model itself, called once on all rows."""
    logits = model({name: ops.convert_to_tensor(values) for name, values in x.items()}, training=False)
    return {o.name: ops.convert_to_numpy(o.scores(logits[o.name])) for o in model.outputs_info}


def assert_equal_scores(found, expected, atol=1e-6):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32 and found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=atol)


@pytest.fixture(scope="module")
def model():
    return build("mmoe")


def test_any_number_of_rows_is_one_trace(monkeypatch):
    model = build("mmoe")
    traces = []
    call = type(model).call
    monkeypatch.setattr(type(model), "call", lambda self, *a, **k: traces.append(1) or call(self, *a, **k))
    for rows in (64, 37, 1, 50):
        assert model.predict(inputs(rows), batch_size=16, verbose=0)["click"].shape == (rows, 1)
    assert len(traces) == 1


@pytest.mark.parametrize("rows, batch_size", [(64, 64), (64, 7), (1, 7), (37, 16)])
def test_scores_are_the_models_in_the_order_of_the_rows(model, rows, batch_size):
    x = inputs(rows)
    assert_equal_scores(model.predict(x, batch_size=batch_size, verbose=0), reference(model, x))


def test_scores_follow_the_weights():
    model = build("mmoe")
    before = model.predict(inputs(8), verbose=0)["click"]
    model.get_layer("click_head").bias.assign([3.0])
    assert (model.predict(inputs(8), verbose=0)["click"] > before).all()


def test_no_row_gives_no_score(model):
    assert model.predict(inputs(0), verbose=0)["click"].shape == (0, 1)


def test_callbacks_steps_and_stopping(model):
    x, seen = inputs(64), []

    class Watch(keras.callbacks.Callback):
        def on_predict_begin(self, logs=None):
            seen.append("begin")

        def on_predict_batch_end(self, batch, logs=None):
            seen.append((batch, len(logs["click"])))
            self.model.stop_predicting = batch == 2

        def on_predict_end(self, logs=None):
            seen.append("end")

    found = model.predict(x, batch_size=10, verbose=0, callbacks=[Watch()])
    assert seen == ["begin", (0, 10), (1, 10), (2, 10), "end"]
    assert_equal_scores(found, {name: values[:30] for name, values in reference(model, x).items()})
    assert len(model.predict(x, batch_size=10, steps=2, verbose=0)["click"]) == 20
    assert len(model.predict(x, batch_size=10, steps=9, verbose=0)["click"]) == 64


def test_the_progress_bar_counts_batches(model, capsys):
    model.predict(inputs(30), batch_size=10, verbose=1)
    assert "3/3" in capsys.readouterr().out


def test_columns_of_other_types_and_shapes(model):
    x = inputs(16)
    other = {**x, "user_id": x["user_id"].astype("int64")[:, None], "age": x["age"].astype("float64").tolist()}
    other["click"] = pd.Series(x["click"])
    assert_equal_scores(model.predict(other, batch_size=5, verbose=0), reference(model, x))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"age": np.zeros(5, "float32")}, r"`x` must hold arrays of one length. Received: .*'age': 5"),
        ({"tags": np.zeros((64, 2), "int32")}, r"`x\['tags'\]` must have the shape \(rows, 3\). Received: shape \(64"),
        ({"age": np.float32(3)}, r"`x\['age'\]` must have the shape \(rows\). Received: shape \(\)"),
        ({"user_id": np.array(["a"] * 64)}, r"`x\['user_id'\]` must be numbers, of a type that becomes int32"),
    ],
)
def test_what_is_refused(model, change, message):
    with pytest.raises(ValueError, match=message):
        model.predict({**inputs(64), **change}, verbose=0)


def test_steps_and_batch_size_are_whole_numbers(model):
    for argument in ("steps", "batch_size"):
        with pytest.raises(ValueError, match=f"`{argument}` must be a whole number >= 1"):
            model.predict(inputs(8), verbose=0, **{argument: 0})


def test_eager_mode_and_datasets_are_left_to_keras(monkeypatch):
    model, x = build("shared_bottom"), inputs(20)
    expected = model.predict(x, batch_size=8, verbose=0)
    model.compile("sgd", run_eagerly=True)
    monkeypatch.setattr(_predict, "predict_rows", None)
    assert_equal_scores(model.predict(x, batch_size=8, verbose=0), expected)
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    assert_equal_scores(model.predict(data, verbose=0), expected)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    rows = 90
    return pd.DataFrame(
        {
            "city": rng.choice(["Rome", "Oslo", None], rows),
            "age": rng.normal(size=rows),
            "history": [list(rng.integers(0, 9, k)) for k in rng.integers(0, 5, rows)],
            "title": rng.choice(["long", "short"], rows),
            "click": rng.integers(0, 2, rows),
        }
    )


@pytest.fixture(scope="module")
def of_tables(frame):
    words = keras.layers.TextVectorization(max_tokens=10, output_mode="multi_hot", vocabulary=["long", "short"])
    features = [
        Categorical("city", dim=4),
        Numeric("age"),
        Sequence("history", dim=4, length=3),
        Encoded("title", words, dtype="string"),
    ]
    transform = FeatureTransform(features, BinaryTask("click")).fit(frame)
    return create_model("shared_bottom", transform, transform.tasks, bottom_units=(8,), tower_units=(4,))


@pytest.mark.parametrize("as_table", [lambda frame: frame, pa.Table.from_pandas], ids=["pandas", "pyarrow"])
def test_a_table_is_encoded_piece_by_piece(frame, of_tables, as_table, monkeypatch, caplog):
    new = pd.concat([frame.drop(columns="click")] * 2, ignore_index=True)
    new.loc[[3, 100, 179], "city"] = "Atlantis"
    expected = of_tables.predict(of_tables.transform.encode(new), verbose=0)
    caplog.clear()
    longest = []
    encode = type(of_tables.transform._fitted).encode
    monkeypatch.setattr(_predict, "_ENCODED_ROWS", 50)
    monkeypatch.setattr(
        type(of_tables.transform._fitted), "encode", lambda self, f: longest.append(len(f)) or encode(self, f)
    )
    with caplog.at_level(logging.WARNING):
        found = of_tables.predict(as_table(new), batch_size=20, verbose=0)
    assert_equal_scores(found, expected)
    assert longest == [40, 40, 40, 40, 20]
    unseen = of_tables.transform.unseen["city"]
    assert (unseen.count, unseen.values) == (3, ("Atlantis",)) and unseen.share == pytest.approx(3 / 180)
    assert caplog.text.count("in no vocabulary") == 1
    assert len(of_tables.predict(as_table(new), batch_size=20, steps=3, verbose=0)["click"]) == 60
