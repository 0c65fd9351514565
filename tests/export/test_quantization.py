"""quantize: int8 tables with a scale for each row, in NumPy and wherever a model's scores leave it."""

import keras
import numpy as np
import pytest
from toys import build, compile_eagerly, features, inputs, labels_for, sample_of

from mtl_zoo import BinaryTask, Embedding, Encoded, Numeric, Sequence, create_model, list_models
from mtl_zoo.export import make_scorer, quantize
from mtl_zoo.layers._tables import as_int8

pytestmark = pytest.mark.tensorflow


def as_numpy(weights):
    return {weight.path: np.array(weight) for weight in weights}


def rounded(table):
    """The tables' rows in plain NumPy, number by number."""
    found = np.zeros_like(table)
    for i, row in enumerate(table):
        scale = np.float32(max(abs(value) for value in row) / 127)
        if scale > 0:
            found[i] = [np.float32(round(float(value / scale))) * scale for value in row]
    return found


def test_rows_are_rounded_by_their_own_scale():
    rows = np.array([[1.27, -0.02, 0.0049], [0, 0, 0], [-1e-3, 5e-4, 0]], "float32")
    whole, scales = as_int8(rows)
    np.testing.assert_array_equal(whole, [[127, -2, 0], [0, 0, 0], [-127, 64, 0]])
    np.testing.assert_allclose(scales, [0.01, 0, 1e-3 / 127], rtol=1e-6)
    assert whole.dtype == np.int8 and scales.dtype == np.float32
    many = np.random.default_rng(0).normal(size=(1000, 16)).astype("float32") * np.logspace(-6, 3, 1000)[:, None]
    whole, scales = as_int8(many.astype("float32"))
    assert (np.abs(whole * scales[:, None] - many) <= 0.5001 * scales[:, None]).all()


@pytest.fixture(scope="module")
def model():
    """Single ids, sums, a sequence and an encoder's rows, in tables of two parts."""
    made = build("mmoe", embedding=Embedding(shards=2))
    rng = np.random.default_rng(0)
    for weight in made.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return made


@pytest.fixture(scope="module")
def quantized(model):
    return quantize(model, inputs())


def test_scores_are_those_of_a_model_with_rounded_rows(model, quantized):
    plain = build("mmoe", embedding=Embedding(shards=2))
    assert len(plain.weights) == len(model.weights)
    for ours, theirs in zip(plain.weights, model.weights, strict=True):
        ours.assign(rounded(np.array(theirs)) if "table" in theirs.path else theirs)
    x = inputs(200)
    wanted, found, exact = (m.predict(x, verbose=0) for m in (plain, quantized.model, model))
    for name, scores in wanted.items():
        np.testing.assert_allclose(found[name], scores, atol=1e-6)
        assert 0 < np.abs(found[name] - exact[name]).max() < 0.02
    worst = {
        name: np.abs(quantized.model.predict(inputs(), verbose=0)[name] - scores).max()
        for name, scores in model.predict(inputs(), verbose=0).items()
    }
    assert quantized.largest_difference == pytest.approx(worst)


def test_sizes_are_those_of_the_weights(model, quantized):
    tables = [np.array(w) for w in model.weights if "table" in w.path]
    assert quantized.bytes_before == sum(4 * np.array(w).size for w in model.weights)
    assert quantized.bytes_before - quantized.bytes_after == sum(3 * t.size - 4 * len(t) for t in tables)


def test_the_model_that_was_given_stays(model, quantized):
    before = as_numpy(model.weights)
    again = quantize(model)
    for path, values in as_numpy(model.weights).items():
        np.testing.assert_array_equal(values, before[path])
    assert again.model is not quantized.model and again.model.embedding.table_dtype == "int8"
    assert model.embedding.table_dtype == "float32"


def test_it_is_saved_loaded_and_served(quantized, tmp_path):
    x, wanted = inputs(20), quantized.model.predict(inputs(20), verbose=0)
    quantized.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    scorer = make_scorer(loaded)
    rank = scorer.rank({"user_id": x["user_id"][:1]}, {n: a for n, a in x.items() if n != "user_id"})
    one_user = {**x, "user_id": np.repeat(x["user_id"][:1], 20)}
    for name, scores in wanted.items():
        np.testing.assert_array_equal(loaded.predict(x, verbose=0)[name], scores)
        np.testing.assert_allclose(scorer(x)[name], scores, atol=1e-6)
        np.testing.assert_allclose(rank[name], loaded.predict(one_user, verbose=0)[name], atol=1e-6)


def test_training_leaves_the_tables(model):
    made = compile_eagerly(quantize(model).model, "auto")
    before = as_numpy(made.weights)
    made.fit(inputs(), labels_for(made), epochs=1, verbose=0)
    for path, values in as_numpy(made.weights).items():
        assert np.array_equal(values, before[path]) == ("table" in path or "moving" in path), path


def test_what_is_refused(quantized):
    with pytest.raises(ValueError, match="`model` must have float32 embedding tables.*with int8 tables"):
        quantize(quantized.model)
    numbers = create_model("shared_bottom", [Numeric("age")], [BinaryTask("click")], bottom_units=(2,))
    with pytest.raises(ValueError, match="`model` must have float32 embedding tables.*with no embedding table"):
        quantize(numbers)
    with pytest.raises(ValueError, match="`table_dtype` must be one of the known values. Received: table_dtype='int4'"):
        Embedding(table_dtype="int4")


def test_encoders_keep_their_weights():
    encoder = keras.layers.Dense(5)
    specs = [Encoded("vector", encoder, shape=(3,)), Sequence("history", size=7, dim=4, length=3, encoder="gru")]
    model = create_model("shared_bottom", [*specs, *features()[:1]], [BinaryTask("click")], bottom_units=(4,))
    made = quantize(model).model
    ours, theirs = ({p: v for p, v in as_numpy(m.weights).items() if "table" not in p} for m in (made, model))
    assert ours.keys() == theirs.keys()
    for path, values in theirs.items():
        np.testing.assert_array_equal(ours[path], values)


@pytest.mark.parametrize("name", sample_of(list_models(), ("esmm",)))
def test_every_model_can_be_quantized(name):
    model = build(name)
    found = quantize(model, inputs())
    assert found.bytes_after < found.bytes_before
    assert all(difference < 1e-2 for difference in found.largest_difference.values())
