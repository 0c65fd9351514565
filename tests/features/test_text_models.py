"""Text inside models: every encoder trains, is saved, exported as strings, and padding or a key change nothing."""

import dataclasses
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import sample_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, RegressionTask, SharedBottom, Text
from mtl_zoo.features.text import encoder_names
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.layers.text import TextAttention, TextCNN

TASKS = (BinaryTask("like"), RegressionTask("stars"))
GOOD, BAD = ("good", "great", "lovely"), ("bad", "boring", "awful")
VOCABULARY = (*GOOD, *BAD, "film", "not", "##ly")


def reviews(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    like = rng.integers(0, 2, rows)
    texts = [" ".join([*rng.choice(["film", "story"], 2), *rng.choice(GOOD if y else BAD, 1)]) for y in like]
    texts[0] = None
    return pd.DataFrame({"review": texts, "user": rng.integers(0, 9, rows), "like": like, "stars": 1.0 + 3 * like})


def text(encoder, **arguments):
    return Text("review", encoder, **{"dim": 4, "max_length": 5, "vocabulary": VOCABULARY, **arguments})


def fitted(*features, tasks=TASKS):
    return FeatureTransform([*features, Categorical("user", dim=2)], tasks).fit(reviews())


def made(*features, **arguments):
    return SharedBottom(fitted(*features), bottom_units=(4,), tower_units=(), **arguments)


every_encoder = pytest.mark.parametrize("encoder", encoder_names())


@pytest.mark.extended
@pytest.mark.parametrize("encoder", sample_of(encoder_names(), ("mean",)))
@pytest.mark.tensorflow
def test_words_are_learned_and_training_goes_on_after_loading(encoder, tmp_path):
    keras.utils.set_random_seed(1)
    model, table = made(text(encoder)), reviews()
    # Larger steps kill all four units of the bottom from some starts.
    model.compile(keras.optimizers.Adam(0.02), metrics=None, run_eagerly=True)
    model.fit(table, batch_size=60, epochs=20, verbose=0)
    other = reviews(seed=1)
    scores, like = np.asarray(model(model.transform.encode(other))["like"])[1:, 0], other["like"].to_numpy()[1:]
    assert scores[like == 1].min() > scores[like == 0].max()
    model.save(tmp_path / "model.keras")
    loaded, x = keras.saving.load_model(tmp_path / "model.keras"), model.transform.encode(table)
    for one in (model, loaded):
        if encoder != "transformer":  # its dropout draws on
            one.compile("sgd", metrics=None, run_eagerly=True)
            one.fit(table, batch_size=60, epochs=1, verbose=0, shuffle=False)
    for name, values in model(x).items():
        np.testing.assert_allclose(loaded(x)[name], values, atol=1e-6)


@every_encoder
def test_padding_and_the_length_change_nothing(encoder):
    short, long = (FeatureEmbedding([text(encoder, max_length=n)], joined=True) for n in (5, 9))
    ids = np.array([[3, 4, 11, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 3, 4, 5, 6]], "int32")
    vectors = ops.convert_to_numpy(short({"review": ids}))
    longer = np.pad(ids, ((0, 0), (0, 4)))
    long({"review": longer})
    long.set_weights(short.get_weights())
    np.testing.assert_allclose(ops.convert_to_numpy(long({"review": longer})), vectors, atol=1e-6)
    assert not vectors[2].any() and np.abs(vectors[[0, 1, 3]]).max(axis=1).all()


def test_a_layer_of_one_s_own_and_one_key_for_two():
    own = TextCNN(3, widths=(2,), name="own")
    features = [text(own, key="words"), dataclasses.replace(text(own, key="words"), name="title", max_length=3)]
    embedding = FeatureEmbedding(features)
    ids = np.array([[3, 4, 5]], "int32")
    vectors = embedding({"review": np.pad(ids, ((0, 0), (0, 2))), "title": ids})
    np.testing.assert_allclose(*(ops.convert_to_numpy(v) for v in vectors.values()), atol=1e-6)
    assert len(embedding.weights) == 3 and not own.built  # one table, one kernel and bias; a copy of the layer
    again = FeatureEmbedding.from_config(embedding.get_config())
    assert again.get_config() == embedding.get_config()

    with_pooling = FeatureEmbedding([text(keras.layers.GlobalAveragePooling1D())])
    mean = FeatureEmbedding([text("mean")])
    ids = np.array([[3, 4, 0, 0, 0]], "int32")
    with_pooling({"review": ids}), mean({"review": ids})
    mean.set_weights(with_pooling.get_weights())
    pair = [ops.convert_to_numpy(layer({"review": ids})["review"]) for layer in (with_pooling, mean)]
    np.testing.assert_allclose(*pair, atol=1e-6)


def test_texts_and_categories_of_one_key_share_nothing():
    embedding = FeatureEmbedding([text("mean", key="k"), Categorical("city", size=3, dim=4, key="k")])
    embedding.build({})
    assert embedding.weights[0].shape == (len(VOCABULARY) + 2 + 3 + 2, 4)


@pytest.mark.parametrize("encoder", ["mean", "attention"])
def test_pieces_are_dropped_in_training_alone_and_anew(encoder):
    layer = FeatureEmbedding([text(encoder, dropout_tokens=0.5)], joined=True)
    ids = np.tile(np.array([[2, 3, 4, 5, 0]], "int32"), (50, 1))
    ids[0] = 0
    still = ops.convert_to_numpy(layer({"review": ids}, training=False))
    assert len(np.unique(still[1:], axis=0)) == 1
    first, second = (ops.convert_to_numpy(layer({"review": ids}, training=True)) for _ in range(2))
    assert len(np.unique(first, axis=0)) > 5 and np.abs(first - second).max() > 1e-4
    assert not first[0].any()  # padding stays padding


@pytest.mark.tensorflow
def test_dropping_every_other_piece_is_what_the_rate_says():
    layer = FeatureEmbedding([text("mean", dropout_tokens=0.25, max_length=400)], joined=True)
    ids = np.full((50, 400), 3, "int32")
    layer({"review": ids})
    table = np.zeros(layer.weights[0].shape, "float32")
    table[1] = 1.0  # counts what is unknown
    layer.weights[0].assign(table)
    assert abs(float(ops.mean(layer({"review": ids}, training=True))) - 0.25) < 0.02


@pytest.mark.parametrize("encoder", ["mean", "cnn"])
@pytest.mark.tensorflow
def test_xla_compiles_the_embedding(encoder):
    import tensorflow as tf

    embedding = FeatureEmbedding([text(encoder)], joined=True)
    ids = {"review": np.array([[3, 4, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")}
    vectors = embedding(ids)
    np.testing.assert_allclose(tf.function(embedding, jit_compile=True)(ids), vectors, atol=1e-5)


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_process_of_tensorflow_alone_scores_strings(tmp_path):
    title = Text("title", TextAttention(3), column="review", dim=3, max_length=4, vocabulary=VOCABULARY)
    model = made(text("cnn", vocabulary=None, vocabulary_size=50, lowercase=False), title)
    names = mtl_zoo.export_serving(model, tmp_path / "exported")
    assert names == {"review": "review", "user": "user"}
    strings = ["good film", "", "  ", "naïve 好 \x00 😀", "film " * 9999, "Good not"]
    wanted = model.predict(pd.DataFrame({"review": strings, "user": [1] * 6}), verbose=0)
    assert len(np.unique(wanted["like"].round(6))) > 3
    scorer = mtl_zoo.make_scorer(model, raw=True)
    np.testing.assert_allclose(scorer({"review": strings, "user": [1] * 6})["like"], wanted["like"], atol=1e-6)
    code = f"""
        import sys
        import tensorflow as tf
        import tensorflow_text
        served = tf.saved_model.load({str(tmp_path / "exported")!r})
        assert not any(name.startswith("mtl_zoo") for name in sys.modules)
        raw = {{"review": tf.constant({strings!r}), "user": tf.constant([1] * 6, tf.int64)}}
        print(served.score(raw)["like"].numpy()[:, 0].tolist())
        raw["review"] = tf.constant([b"good \\xff film"] * 6)
        print(served.score(raw)["like"].numpy()[0, 0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scores, damaged = map(eval, done.stdout.strip().splitlines())
    np.testing.assert_allclose(scores, wanted["like"][:, 0], atol=1e-6)
    assert abs(damaged - wanted["like"][0, 0]) < 1e-6  # bytes that are no text are left out


@pytest.mark.tensorflow
def test_weights_of_the_encoder_are_exported_once(tmp_path):
    model = made(text(TextCNN(20_000, widths=(2,))))
    mtl_zoo.export_serving(model, tmp_path / "exported")
    weights = 4 * sum(int(np.prod(v.shape)) for v in model.weights)
    written = sum(path.stat().st_size for path in (tmp_path / "exported" / "variables").iterdir())
    assert weights < written < 1.1 * weights
