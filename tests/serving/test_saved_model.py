"""export_serving: raw columns in, `predict`'s scores out."""

import os

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from toys import compile_eagerly, sample_of, small_arguments, tasks_of

from mtl_zoo import (
    BinaryTask,
    Categorical,
    Encoded,
    FeatureTransform,
    MulticlassTask,
    Numeric,
    RegressionTask,
    Sequence,
    create_model,
    list_models,
)
from mtl_zoo.export import export_serving
from mtl_zoo.serving.formats.saved_model import input_names

pytestmark = pytest.mark.tensorflow

FUNNEL = (BinaryTask("click"), BinaryTask("conversion", sample_space="click"))
MIXED = (*FUNNEL, MulticlassTask("grade", classes=("a", "b", "c")), RegressionTask("stars"))


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 200
    click = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 50, n) + 2**53 + 1,
            "city": rng.choice(["Rome", "Oslo", None], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 80, n)),
            "is new?": rng.random(n) < 0.5,
            "history": ["|".join(map(str, rng.integers(0, 9, k))) for k in rng.integers(0, 5, n)],
            "tags": [list(rng.choice(["a", "b"], k)) for k in rng.integers(0, 3, n)],
            "vector": list(rng.normal(size=(n, 2))),
            "title": rng.choice(["a long title", "short"], n),
            "domain": rng.choice(["app", "web"], n),
            "click": click,
            "cart": click * rng.integers(0, 2, n),
            "conversion": click * rng.integers(0, 2, n),
            "grade": rng.choice(["a", "b", "c"], n),
            "stars": rng.normal(size=n),
        }
    )


def make_transform(frame, tasks):
    features = [
        Categorical("user_id", dim=4),
        Categorical("city", dim=4),
        Numeric("age", missing="mean"),
        Categorical("is_new", column="is new?", dim=4),
        Sequence("history", dim=4, length=3),
        Categorical("domain", dim=2),
    ]
    return FeatureTransform(features, tasks).fit(frame)


NEW = pd.DataFrame(
    {
        "user_id": [2**53 + 1, 7, -1],
        "city": ["Rome", None, "Atlantis"],
        "age": [30.0, np.nan, 1000.0],
        "is new?": [True, False, True],
        "history": ["1|2|3|4|5", "", "99"],
        "tags": [["a", "b"], [], ["z"]],
        "vector": [[0.0, 1.0]] * 3,
        "title": ["a title", "never seen", ""],
        "domain": ["web", "app", "phone"],
    }
)


def scores_of(folder, raw, names):
    loaded = tf.saved_model.load(str(folder))
    return loaded.signatures["serving_default"](**{names[column]: tf.constant(array) for column, array in raw.items()})


SMALL = {"tower_units": (4,)}


@pytest.mark.parametrize("name", sample_of(list_models()))
def test_the_exported_model_scores_as_predict(name, frame, tmp_path):
    tasks = tasks_of(name, MIXED)
    transform = make_transform(frame, tasks)
    model = create_model(name, transform, tasks, **small_arguments(name))
    names = export_serving(model, tmp_path / "exported")
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    serve = loaded.signatures["serving_default"]
    assert set(serve.structured_input_signature[1]) == {"user_id", "city", "age", "is_new", "history", "domain"}
    assert set(serve.structured_outputs) == {output.name for output in model.outputs_info}
    table = pd.concat([frame[NEW.columns], NEW])
    raw = {column: tf.constant(array) for column, array in transform.raw_arrays(table).items()}
    scores = serve(**{names[column]: tensor for column, tensor in raw.items()})
    by_column = loaded.score(raw)
    for output, expected in model.predict(table, verbose=0).items():
        assert scores[output].dtype == tf.float32 and scores[output].shape == expected.shape
        np.testing.assert_allclose(scores[output], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(by_column[output], scores[output])


def test_a_trained_and_reloaded_model_with_every_kind_of_feature(frame, tmp_path):
    words = keras.layers.TextVectorization(max_tokens=10, output_mode="multi_hot", vocabulary=["a", "long", "title"])
    features = [
        *make_transform(frame, FUNNEL)._specs,
        Numeric("age_bucket", column="age", normalization="quantile", missing="bucket", dim=4),
        Categorical("tags", dim=4, multi_hot=True),
        Encoded("vector", keras.layers.Dense(3), shape=(2,)),
        Encoded("title", words, dtype="string"),
    ]
    model = create_model("shared_bottom", FeatureTransform(features, FUNNEL).fit(frame), FUNNEL, **SMALL)
    compile_eagerly(model, "auto").fit(frame, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    names = export_serving(loaded, tmp_path / "exported")
    scores = scores_of(tmp_path / "exported", loaded.transform.raw_arrays(NEW), names)
    for output, expected in model.predict(NEW, verbose=0).items():
        np.testing.assert_allclose(scores[output], expected, rtol=1e-6, atol=1e-6)


def test_each_variable_is_written_once(tmp_path):
    table = pd.DataFrame({"x": ["a", "b"] * 5, "click": [0, 1] * 5})
    transform = FeatureTransform(Categorical("x", hash_buckets=100_000), BinaryTask("click")).fit(table)
    model = create_model("shared_bottom", transform, transform.tasks)
    compile_eagerly(model, "auto").fit(table, verbose=0)  # so that the optimizer has slots
    export_serving(model, tmp_path / "exported")
    written = sum(path.stat().st_size for path in (tmp_path / "exported").rglob("*") if path.is_file())
    weights = 4 * model.count_params()
    assert weights < written < 1.1 * weights


def test_mixed_precision_scores_are_float32(tmp_path):
    table = pd.DataFrame({"x": ["a", "b"], "click": [0, 1]})
    transform = FeatureTransform(Categorical("x"), BinaryTask("click")).fit(table)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create_model("shared_bottom", transform, transform.tasks)
        names = export_serving(model, tmp_path / "exported")
        scores = scores_of(tmp_path / "exported", transform.raw_arrays(table), names)
        assert scores["click"].dtype == tf.float32
        np.testing.assert_allclose(scores["click"], model.predict(table, verbose=0)["click"], rtol=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def small():
    table = pd.DataFrame({"x": ["a", "b"], "click": [0, 1]})
    transform = FeatureTransform(Categorical("x"), BinaryTask("click")).fit(table)
    return create_model("shared_bottom", transform, transform.tasks)


def test_refuses(small, tmp_path, monkeypatch):
    bare = create_model("shared_bottom", [Categorical("x", size=3)], [BinaryTask("click")])
    with pytest.raises(
        ValueError, match=r"`model` must be made with a fitted FeatureTransform.*made from feature specs"
    ):
        export_serving(bare, tmp_path / "exported")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`path` must be a folder, not a file"):
        export_serving(small, tmp_path / "file")
    with pytest.raises(ValueError, match="`path` must be new, empty, or hold a SavedModel"):
        export_serving(small, tmp_path)
    with pytest.raises(
        OSError, match=r"`path` must be a folder that can be written. Received: path='.*/file/exported'"
    ):
        export_serving(small, tmp_path / "file" / "exported")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError, match=r"`format` 'saved_model' needs the TensorFlow backend. Received: KERAS_BACKEND='jax'"
    ):
        export_serving(small, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_overwriting_is_asked_for(small, tmp_path):
    export_serving(small, tmp_path / "exported")
    with pytest.raises(ValueError, match="`path` holds a SavedModel; overwrite=True replaces it"):
        export_serving(small, tmp_path / "exported")
    export_serving(small, tmp_path / "exported", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_a_failed_rename_keeps_the_old_model(small, tmp_path, monkeypatch):
    export_serving(small, tmp_path / "exported")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="disk full"):
        export_serving(small, tmp_path / "exported", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported" / "saved_model.pb").exists()


# fault 37
def test_a_full_disk_is_named(small, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match=r"`path` must be a folder that can be written.*No space left"):
        export_serving(small, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_input_names():
    columns = ["item id", "item_id", "for", "2nd", "größe", "a", "?", "a/b", "a b"]
    assert input_names(columns) == {
        "item_id": "item_id",
        "a": "a",
        "item id": "item_id_2",
        "for": "column_for",
        "2nd": "column_2nd",
        "größe": "gr_e",
        "?": "column",
        "a/b": "a_b",
        "a b": "a_b_2",
    }


# fault 25
def test_numbers_of_either_width(frame, tmp_path):
    transform = make_transform(frame, FUNNEL)
    model = create_model("shared_bottom", transform, FUNNEL, **SMALL)
    names = export_serving(model, tmp_path / "exported")
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    table = frame[:50].assign(user_id=7)
    raw = {column: tf.constant(array) for column, array in transform.raw_arrays(table).items()}
    expected = model.predict(table, verbose=0)["click"]
    types = {name: tensor.dtype for name, tensor in raw.items()}
    assert types["user_id"] == tf.int64 and types["age"] == tf.float64
    for signature, narrow in (
        ("serving_default", {}),
        ("serving_float32", {"age": tf.float32}),
        ("serving_float32_int32", {"age": tf.float32, "user_id": tf.int32}),
    ):
        given = {c: tf.cast(t, narrow[c]) if c in narrow else t for c, t in raw.items()}
        np.testing.assert_allclose(loaded.score(given)["click"], expected, atol=1e-6)
        by_name = {names[column]: tensor for column, tensor in given.items()}
        np.testing.assert_allclose(loaded.signatures[signature](**by_name)["click"], expected, atol=1e-6)


# fault 39
def test_an_encoders_weights_are_written_once(tmp_path):
    table = pd.DataFrame({"v": [[0.5] * 512, [1.0] * 512], "t": ["a b", "b"], "click": [0, 1]})
    words = keras.layers.TextVectorization(max_tokens=10, output_mode="multi_hot", vocabulary=["a", "b"])
    features = [Encoded("v", keras.layers.Dense(1024), shape=(512,)), Encoded("t", words, dtype="string")]
    transform = FeatureTransform(features, BinaryTask("click")).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(4,))
    export_serving(model, tmp_path / "exported")
    written = sum(path.stat().st_size for path in (tmp_path / "exported").rglob("*") if path.is_file())
    weights = 4 * model.count_params()
    assert weights > 2e6 and weights < written < 1.15 * weights
