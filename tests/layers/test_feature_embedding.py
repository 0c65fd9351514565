import keras
import numpy as np
import pytest
from keras import ops
from toys import features, inputs

from mtl_zoo import Categorical, Encoded, Numeric, Sequence
from mtl_zoo._once import computed_once
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.options import FeatureFusion


def rows_of(embedding, name):
    """The part of a fused weight that belongs to one feature."""
    for group, table in zip(embedding._groups, embedding.tables, strict=True):
        if name in group.offsets:
            feature = next((f for f in embedding.features if f.name == name), None)
            start = group.offsets[name]
            return ops.convert_to_numpy(table)[start : start + feature.num_ids]
    raise KeyError(name)


def test_every_kind_of_feature_against_numpy():
    embedding = FeatureEmbedding(features())
    x = inputs(20)
    vectors = {name: ops.convert_to_numpy(v) for name, v in embedding(x).items()}
    assert list(vectors) == [f.name for f in features()]

    np.testing.assert_allclose(vectors["user_id"], rows_of(embedding, "user_id")[x["user_id"]], atol=1e-6)
    np.testing.assert_allclose(vectors["price"], rows_of(embedding, "price")[x["price"]], atol=1e-6)
    np.testing.assert_allclose(vectors["age"], x["age"][:, None], atol=1e-6)
    mask = (x["tags"] != 0)[..., None]
    np.testing.assert_allclose(vectors["tags"], (rows_of(embedding, "tags")[x["tags"]] * mask).sum(1), atol=1e-6)
    mask = (x["history"] != 0)[..., None]
    mean = (rows_of(embedding, "click")[x["history"]] * mask).sum(1) / np.maximum(mask.sum(1), 1)
    np.testing.assert_allclose(vectors["history"], mean, atol=1e-6)
    assert vectors["title"].shape == (20, 2)
    joined = ops.convert_to_numpy(embedding.concatenate(embedding(x)))
    np.testing.assert_allclose(joined, np.concatenate(list(vectors.values()), axis=1), atol=1e-6)


def test_tables_of_one_width_are_one_weight_and_a_key_is_one_table():
    embedding = FeatureEmbedding(features())
    embedding.build()
    # width 4: user_id 32 + click/history 8 (shared); width 3: tags 10 + price 6; width 2: domain.
    assert sorted(tuple(t.shape) for t in embedding.tables) == [(5, 2), (16, 3), (40, 4)]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_joined_is_what_concatenate_gives(order):
    separate, joined = FeatureEmbedding(features()[order]), FeatureEmbedding(features()[order], joined=True)
    x = inputs(20)
    separate.build()
    joined.build()
    joined.set_weights(separate.get_weights())
    expected = separate.concatenate(separate(x))
    np.testing.assert_array_equal(ops.convert_to_numpy(joined(x)), ops.convert_to_numpy(expected))
    symbolic = joined({name: keras.KerasTensor((None, *value.shape[1:]), value.dtype) for name, value in x.items()})
    assert tuple(symbolic.shape) == (None, expected.shape[1])


def test_a_sequence_that_is_not_pooled_cannot_be_joined():
    unpooled = Sequence("history", size=6, dim=4, length=5, pooling=None)
    with pytest.raises(ValueError, match="`pooling` must be 'mean', 'sum' or 'max'.*feature 'history'"):
        FeatureEmbedding([unpooled], joined=True)


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_pooling_ignores_padding(pooling):
    embedding = FeatureEmbedding([Sequence("history", size=6, dim=4, length=5, pooling=pooling)])
    ids = np.array([[2, 5, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")
    out = ops.convert_to_numpy(embedding({"history": ids})["history"])
    rows = rows_of(embedding, "history")[[2, 5]]
    np.testing.assert_allclose(out[0], getattr(np, pooling)(rows, axis=0), atol=1e-6)
    np.testing.assert_array_equal(out[1], 0)
    padded = FeatureEmbedding([Sequence("history", size=6, dim=4, length=9, pooling=pooling)])
    padded.build()
    padded.tables[0].assign(embedding.tables[0])
    longer = np.pad(ids, [(0, 0), (0, 4)])
    np.testing.assert_allclose(ops.convert_to_numpy(padded({"history": longer})["history"]), out, atol=1e-6)


def test_ids_outside_their_table_count_as_unknown():
    embedding = FeatureEmbedding([Categorical("a", size=3, dim=2), Categorical("b", size=3, dim=2)])
    out = ops.convert_to_numpy(embedding({"a": np.array([-1, 5, 1000], "int32"), "b": np.zeros(3, "int32")})["a"])
    np.testing.assert_array_equal(out, np.repeat(rows_of(embedding, "a")[1:2], 3, axis=0))


def test_pretrained_rows_and_frozen_tables():
    matrix = np.arange(6, dtype="float32").reshape(3, 2)
    given = Categorical("a", size=3, dim=2, pretrained=matrix, trainable=False)
    embedding = FeatureEmbedding([given, Categorical("b", size=3, dim=2)])
    out = ops.convert_to_numpy(embedding({"a": np.array([2, 3, 4]), "b": np.zeros(3, "int32")})["a"])
    np.testing.assert_array_equal(out, matrix)
    assert [t.trainable for t in embedding.tables] == [False, True]
    # The matrix is not in the config: the values come back with the weights.
    assert FeatureEmbedding.from_config(embedding.get_config()).features[0].pretrained is None


@pytest.mark.tensorflow
def test_gradient_of_the_table_is_sparse():
    import tensorflow as tf

    embedding = FeatureEmbedding([Categorical("a", size=1000, dim=2), Categorical("b", size=1000, dim=2)])
    embedding.build()
    with tf.GradientTape() as tape:
        vectors = embedding({"a": np.array([5, 6]), "b": np.array([7, 8])})
        total = tf.reduce_sum(vectors["a"]) + tf.reduce_sum(vectors["b"])
    gradient = tape.gradient(total, embedding.tables[0].value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.shape[0] == 4


def test_layer_survives_saving(tmp_path):
    specs = features()
    keras_inputs = {
        f.name: keras.Input(f.shape, dtype="float32" if f.name in ("age", "title") else "int32", name=f.name)
        for f in specs
    }
    embedding = FeatureEmbedding(specs, name="embedding")
    model = keras.Model(keras_inputs, embedding.concatenate(embedding(keras_inputs)))
    model.save(tmp_path / "m.keras")
    x = inputs(4)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_unknown_sizes_and_shared_tables_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"`features` must know their number of ids.*Received without: \['city'\]"):
        FeatureEmbedding([Categorical("city")])
    with pytest.raises(ValueError, match=r"`dim` must be the same for features that share the table 'item'"):
        FeatureEmbedding([Categorical("item", size=3, dim=2), Categorical("last", size=3, dim=4, key="item")])
    with pytest.raises(TypeError, match="`encoder` must be a Keras layer"):
        Encoded("x", "bert")
    with pytest.raises(ValueError, match="`features` must have different names"):
        FeatureEmbedding([Numeric("x"), Numeric("x")])


@pytest.mark.tensorflow
def test_what_asks_for_many_rows_vectors_is_not_computed_once():
    """Target attention over a user's history asks for each candidate; a fusion of both has both."""
    features = [
        Sequence("history", key="item", size=20, dim=4, length=5, encoder="din", query="item"),
        Categorical("item", size=20, dim=4),
        Categorical("city", size=9, dim=3),
        Numeric("age"),
        Numeric("price"),
    ]
    x = {
        "history": np.repeat([[3, 4, 0, 0, 0]], 6, axis=0),
        "item": np.arange(2, 8),
        "city": np.full(6, 5),
        "age": np.full(6, 0.5, "float32"),
        "price": np.linspace(0, 1, 6, dtype="float32"),
    }
    once = {name: ops.convert_to_tensor(x[name][:1]) for name in ("history", "city", "age")}
    fusions = [FeatureFusion("both", ["city", "item"], units=3)]
    for options in ({}, {"fusions": fusions}, {"joined": True}, {"joined": True, "fusions": fusions}):
        layer = FeatureEmbedding(features, **options)
        expected = layer(x)
        with computed_once(once, 6):
            found = layer(x)
            assert layer._alone(once) == {"city", "age"}
        for part, wanted in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(part, wanted, atol=1e-6)
