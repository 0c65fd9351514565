"""A language model inside of a model: `Text("review", LanguageModel(...))` fitted, saved, loaded, exported."""

import shutil

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import ops
from language_folders import bert_folder, llama_folder

from mtl_zoo import BinaryTask, Categorical, EntityTable, FeatureTransform, LanguageModel, SharedBottom, Text
from mtl_zoo.export import export, export_serving
from mtl_zoo.features import TableStream
from mtl_zoo.features.spec import features_from_config, features_to_config
from mtl_zoo.language import merge_lora
from mtl_zoo.optimizers import LazySGD

pytestmark = pytest.mark.tensorflow

CLICK = BinaryTask("click")
TEXTS = ["A good film, and long", "bad film", None, "  ", "the DOG! café 好 \U0001f600", "a\x00b", "bad film", ""]
TABLE = pd.DataFrame({"review": TEXTS, "city": list("abcabcab"), "click": [0, 1] * 4})
MODES = pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
SOME_MODES = pytest.mark.parametrize("mode", ["frozen", "lora", pytest.param("full", marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ZOO_CACHE", str(tmp_path / "cache"))


def fitted(folder, mode, **options):
    encoder = LanguageModel(folder, mode=mode, rank=2, max_length=8, layers=1, **options)
    return FeatureTransform([Text("review", encoder, dim=3), Categorical("city", dim=2)], CLICK).fit(TABLE)


def model_of(transform):
    model = SharedBottom(transform, bottom_units=(3,), tower_units=())
    model.compile("adam", run_eagerly=True, metrics=None)
    return model


def encoder_of(model):
    (layer,) = [layer for layer in model.layers if hasattr(layer, "encoders")]
    return next(iter(layer.encoders.values()))


def scores(model, table=TABLE):
    return model.predict(table, verbose=0)["click"]


@pytest.mark.extended
@MODES
def test_tables_graphs_and_streams_give_the_same(mode, bert, tmp_path):
    transform = fitted(bert, mode)
    arrays = transform.encode(TABLE)
    assert arrays["review"].shape == ((8, 8)) and arrays["review"].dtype == ("float32" if mode == "frozen" else "int32")
    assert not arrays["review"][[2, 3, 7]].any() and arrays["review"][[0, 1, 4, 5, 6]].any(axis=1).all()
    in_graph = tf.function(transform.encode_in_graph)(transform.raw_arrays(TABLE))
    np.testing.assert_allclose(in_graph["review"], arrays["review"], atol=1e-6)
    TABLE.to_parquet(tmp_path / "rows.parquet")
    ((streamed, _),) = TableStream(tmp_path / "rows.parquet", transform).batches(batch_size=8)
    np.testing.assert_array_equal(streamed["review"], arrays["review"])
    nothing = transform.encode_in_graph({"review": tf.constant(["", " "]), "city": tf.constant(["a", "b"])})
    np.testing.assert_array_equal(nothing["review"], np.zeros((2, 8)))
    broken = {"review": tf.constant([b"\xff\xfe", b"good \xc3"]), "city": tf.constant(["a", "b"])}
    assert np.isfinite(np.asarray(transform.encode_in_graph(broken)["review"], float)).all()


@MODES
def test_a_saved_transform_is_the_same(mode, bert, tmp_path):
    transform = fitted(bert, mode)
    transform.save(tmp_path / "transform")
    loaded = FeatureTransform.load(tmp_path / "transform")
    assert loaded.features == transform.features and loaded.specs == transform.specs
    assert loaded.features[0].encoder == transform.features[0].encoder
    pd.testing.assert_frame_equal(loaded.describe(), transform.describe())
    np.testing.assert_array_equal(loaded.encode(TABLE)["review"], transform.encode(TABLE)["review"])
    np.testing.assert_array_equal(
        FeatureTransform(loaded.specs, CLICK).fit(TABLE).encode(TABLE)["review"], transform.encode(TABLE)["review"]
    )


@SOME_MODES
def test_a_model_is_saved_and_goes_on_training(mode, bert, tmp_path):
    model = model_of(fitted(bert, mode))
    model.fit(TABLE, batch_size=4, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(scores(loaded), scores(model))
    for one in (model, loaded):
        one.fit(TABLE, batch_size=4, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_array_equal(scores(loaded), scores(model))
    trained = {"frozen": 2, "lora": 4 + 2, "full": len(encoder_of(model).weights)}[mode]
    assert len(encoder_of(model).trainable_weights) == trained
    slots = sum(2 for v in model.trainable_variables)
    assert len(loaded.optimizer.variables) == slots + 2


@pytest.mark.extended
def test_a_learned_prompt_in_a_model(tmp_path):
    transform = fitted(llama_folder(tmp_path / "llama"), "prompt", prompt_length=3)
    model = model_of(transform)
    model.fit(TABLE, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(scores(loaded), scores(model))
    assert sorted(w.name for w in encoder_of(loaded).trainable_weights) == ["bias", "kernel", "prompt"]
    export(loaded, tmp_path / "exported", raw=False)
    served = tf.saved_model.load(tmp_path / "exported").signatures["serving_default"]
    found = served(**{name: tf.constant(array) for name, array in transform.encode(TABLE).items()})["click"]
    np.testing.assert_allclose(found, scores(loaded), atol=1e-6)


def test_a_frozen_model_is_fed_vectors(bert):
    transform = fitted(bert, "frozen")
    np.testing.assert_array_equal(
        transform.encode(TABLE)["review"], LanguageModel(bert, max_length=8, layers=1).vectors(TEXTS)
    )
    assert sum(int(np.prod(w.shape)) for w in encoder_of(model_of(transform)).weights) == 8 * 3 + 3


@SOME_MODES
def test_an_export_takes_raw_strings_and_holds_all_of_it_once(mode, bert, tmp_path):
    folder = bert_folder(tmp_path / "wide", hidden_size=64, intermediate_size=256)
    transform = fitted(folder, mode)
    model = model_of(transform)
    model.fit(TABLE, batch_size=4, verbose=0)
    wanted = scores(model)
    if mode == "lora":
        assert merge_lora(model) == 1
        np.testing.assert_allclose(scores(model), wanted, atol=1e-5)
    export_serving(model, tmp_path / "exported")
    shutil.rmtree(folder)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    raw = {"review": tf.constant([text or "" for text in TEXTS]), "city": tf.constant(TABLE["city"])}
    np.testing.assert_allclose(loaded.score(raw)["click"], wanted, atol=1e-5)
    # The network once, in float32; the wiring of the graph is another part of the folder.
    parameters = 4 * sum(int(np.prod(w.shape)) for w in LanguageModel.layer(_again(tmp_path, layers=1)).weights)
    written = sum(path.stat().st_size for path in (tmp_path / "exported" / "variables").iterdir())
    assert parameters < written < 1.15 * parameters


def _again(tmp_path, **options):
    return LanguageModel(
        bert_folder(tmp_path / "again", hidden_size=64, intermediate_size=256), max_length=8, **options
    )


def test_a_folder_that_is_gone_is_needed_by_a_frozen_model_alone(bert, tmp_path):
    for mode in ("frozen", "lora"):
        folder = bert_folder(tmp_path / mode)
        model = model_of(fitted(folder, mode))
        wanted, arrays = scores(model), model.transform.encode(TABLE)
        model.save(tmp_path / "model.keras")
        shutil.rmtree(folder)
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(arrays, verbose=0)["click"], wanted)
        if mode == "lora":
            np.testing.assert_array_equal(scores(loaded), wanted)
            with pytest.raises(FileNotFoundError, match="which is no folder"):
                model_of(loaded.transform)  # a new model would start from random weights
        else:
            with pytest.raises(FileNotFoundError, match="which is no folder"):
                scores(loaded)
            bert_folder(folder, seed=1)
            with pytest.raises(ValueError, match="whose weights are others now"):
                scores(loaded)
            bert_folder(folder)
            np.testing.assert_array_equal(scores(loaded), wanted)


@pytest.mark.extended
def test_a_copy_needs_no_folder(tmp_path):
    folder = bert_folder(tmp_path / "model")
    model = model_of(fitted(folder, "frozen", keep="copy"))
    wanted = scores(model)
    model.save(tmp_path / "model.keras")
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(scores(loaded), wanted, atol=1e-6)
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(scores(keras.saving.load_model(tmp_path / "again.keras")), scores(loaded))


@pytest.mark.extended
def test_a_decoder_is_exported_without_its_tokenizer(tmp_path):
    folder = llama_folder(tmp_path / "llama")
    model = model_of(fitted(folder, "lora"))
    arrays = model.transform.encode(TABLE)
    with pytest.raises(ValueError, match="tensorflow-text has no byte pairs.*raw=False"):
        export_serving(model, tmp_path / "raw")
    export(model, tmp_path / "ids", raw=False)
    loaded = tf.saved_model.load(str(tmp_path / "ids"))
    given = {name: tf.constant(array) for name, array in arrays.items()}
    np.testing.assert_allclose(loaded.score(given)["click"], scores(model), atol=1e-5)


def test_features_of_one_key_share_one_network(bert):
    encoder = LanguageModel(bert, mode="lora", max_length=8, layers=1)
    specs = [Text("review", encoder, key="text"), Text("title", encoder, key="text", column="review")]
    transform = FeatureTransform(specs, CLICK).fit(TABLE)
    model = model_of(transform)
    (layer,) = [layer for layer in model.layers if hasattr(layer, "encoders")]
    assert len(layer.encoders) == 1 and np.isfinite(scores(model)).all()
    other = Text("title", LanguageModel(bert, mode="full", max_length=8), key="text", column="review")
    with pytest.raises(ValueError, match="`encoder` must be the same for features that share"):
        FeatureTransform([specs[0], other], CLICK)


def test_a_config_has_all_that_a_network_needs(bert):
    transform = fitted(bert, "lora")
    (again, _) = features_from_config(features_to_config(transform.features))
    assert again == transform.features[0] and again.encoder.architecture["width"] == 8
    with pytest.raises(TypeError, match="a Keras layer or a LanguageModel"):
        Text("review", 3)


def test_a_model_starts_from_the_weights_of_the_folder(bert):
    transform = fitted(bert, "full")
    model, layer = model_of(transform), LanguageModel(bert, mode="full", max_length=8, layers=1).layer()
    found = encoder_of(model)
    ids = transform.encode(TABLE)["review"]
    vectors = ops.convert_to_numpy(layer(ids))
    kernel, bias = (ops.convert_to_numpy(w) for w in (found.projection.kernel, found.projection.bias))
    np.testing.assert_allclose(ops.convert_to_numpy(found(ids)), vectors @ kernel + bias, atol=1e-5)


@pytest.mark.extended
def test_pretrained_weights_have_a_learning_rate_of_their_own(bert, tmp_path):
    model = SharedBottom(fitted(bert, "lora"), bottom_units=(3,), tower_units=())
    parts = {"encoders": keras.optimizers.SGD(0.5), "embeddings": LazySGD(0.5), "dense": LazySGD(0.5)}
    parts["encoders"].learning_rate = 1e-12
    model.compile(parts, run_eagerly=True, metrics=None)
    encoder = encoder_of(model)
    for _, up, _ in encoder.updates:  # from B = 0 the gradient of A is 0
        up.assign(ops.ones(up.shape))
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    model.fit(TABLE, batch_size=8, verbose=0)
    moved = {v.path for v in model.trainable_variables if (ops.convert_to_numpy(v) != before[v.path]).any()}
    kept = {weight.path for down, up, _ in encoder.updates for weight in (down, up)}
    assert kept and moved and not kept & moved
    assert encoder.projection.kernel.path in moved
    assert len(model.optimizer.encoders.variables) == 2
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(ops.convert_to_numpy(loaded.optimizer.encoders.learning_rate)) == pytest.approx(1e-12)
    for one in (model, loaded):
        one.fit(TABLE, batch_size=4, verbose=0, shuffle=False)
    np.testing.assert_array_equal(scores(loaded), scores(model))
    model.compile({"encoders": 1e-5, "embeddings": 0.1, "dense": "adam"})
    assert float(ops.convert_to_numpy(model.optimizer.encoders.learning_rate)) == pytest.approx(1e-5)


@MODES
def test_texts_of_entities_are_encoded_once_an_entity(mode, bert):
    films = pd.DataFrame({"film": list(range(8)), "review": TEXTS})
    rows = pd.DataFrame({"film": [1, 0, 7, 1, 99, 4, 5, 2], "click": [0, 1] * 4})
    encoder = LanguageModel(bert, mode=mode, max_length=8, layers=1)
    items = EntityTable(films, key="film")
    transform = FeatureTransform(Text("review", encoder, dim=3), CLICK, entities=items).fit(rows)
    arrays = transform.encode(rows)
    wanted = FeatureTransform(Text("review", encoder), CLICK).fit(TABLE).encode(TABLE)["review"]
    np.testing.assert_allclose(arrays["review"][[0, 1, 5]], wanted[[1, 0, 4]], atol=1e-6)
    assert not arrays["review"][[2, 4, 7]].any()  # a blank text, an id that no film has, a missing text
    in_graph = transform.encode_in_graph(transform.raw_arrays(rows))
    np.testing.assert_allclose(in_graph["review"], arrays["review"], atol=1e-6)
    assert np.isfinite(scores(model_of(transform), rows)).all()


@pytest.mark.extended
def test_half_precision_inside_of_a_model(bert):
    model = model_of(fitted(bert, "lora", dtype="mixed_bfloat16"))
    model.fit(TABLE, batch_size=4, verbose=0)
    assert np.isfinite(scores(model)).all() and scores(model).dtype == np.float32
    assert {str(v.dtype) for v in model.trainable_variables} == {"float32"}
