"""Tables as weights: split by row, drawn in chunks, read by row, penalised by what is looked up."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import Categorical, Numeric, Sequence, _backend
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.layers import FeatureEmbedding, _tables
from mtl_zoo.layers._tables import InitialRows, shard_bounds

UNIFORM = keras.initializers.RandomUniform(seed=7)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 10 rows of width 4."""
    monkeypatch.setattr(_tables, "CHUNK_BYTES", 160)


def features():
    return [
        Categorical("user", size=21, dim=4),
        Categorical("item", size=8, dim=4),
        Categorical("tags", size=8, dim=4, multi_hot=True, length=3),
        Sequence("history", size=8, dim=4, key="item", length=5),
        Sequence("best", size=8, dim=4, key="item", length=2, pooling="max"),
        Numeric("age"),
    ]


def batch(rows=12, seed=0):
    rng = np.random.default_rng(seed)
    lists = {"tags": 3, "history": 5, "best": 2}
    ids = {"user": 23, "item": 10, "tags": 10, "history": 10, "best": 10}
    x = {name: rng.integers(0, n, (rows, lists[name]) if name in lists else rows) for name, n in ids.items()}
    return {**{name: v.astype("int32") for name, v in x.items()}, "age": rng.normal(size=rows).astype("float32")}


def built(specs, **options):
    embedding = FeatureEmbedding(specs, **{"initializer": UNIFORM, **options})
    embedding.build()
    return embedding


def values(embedding):
    """The rows of the table, without the spare one at the end of each shard."""
    tables = [ops.convert_to_numpy(table) for table in embedding.tables]
    return tables[0] if len(tables) == 1 else np.concatenate([table[:-1] for table in tables])


def assert_same_vectors(a, b, x):
    expected = a(x)
    for name, vectors in b(x).items():
        np.testing.assert_allclose(ops.convert_to_numpy(vectors), ops.convert_to_numpy(expected[name]), atol=1e-6)


# Shards.


def test_shards_are_nearly_equal_and_none_is_empty():
    assert shard_bounds(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert shard_bounds(2, 5) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards_start_and_answer_as_one_table(shards, small_chunks):
    one, split = built(features()), built(features(), shards=shards)
    assert [t.name for t in one.tables] == ["table_4"]
    assert [t.name for t in split.tables] == [f"table_4_shard_{i}" for i in range(shards)]
    assert max(t.shape[0] for t in split.tables) - min(t.shape[0] for t in split.tables) <= 1
    assert all(_backend.is_table(t) for t in split.tables)
    np.testing.assert_array_equal(values(split), values(one))
    assert not any(ops.convert_to_numpy(t)[-1].any() for t in split.tables)
    assert_same_vectors(one, split, batch())


def test_ids_of_one_shard_leave_the_others_empty():
    one, split = built([Categorical("user", size=21, dim=4)]), built([Categorical("user", size=21, dim=4)], shards=4)
    for ids in ([0, 1, 2], [22, 22], []):
        assert_same_vectors(one, split, {"user": np.array(ids, "int32")})


@pytest.mark.tensorflow
def test_each_shard_has_the_sparse_gradient_of_its_rows():
    import tensorflow as tf

    x, weights = batch(), np.random.default_rng(1).normal(size=(12, 21)).astype("float32")
    dense = []
    for shards in (1, 3):
        embedding = built(features(), shards=shards)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(embedding.concatenate(embedding(x)) * weights)
        gradients = tape.gradient(total, [t.value for t in embedding.tables])
        assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
        end = -1 if shards > 1 else None
        dense.append(np.concatenate([tf.convert_to_tensor(g).numpy()[:end] for g in gradients]))
    np.testing.assert_allclose(dense[1], dense[0], atol=1e-5)


def test_layer_with_shards_survives_saving(tmp_path, small_chunks):
    inputs = make_inputs(features())
    embedding = FeatureEmbedding(features(), shards=3, l2=0.1, name="embedding")
    model = keras.Model(inputs, embedding.concatenate(embedding(inputs)))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert len(loaded.get_layer("embedding").tables) == 3
    assert loaded.get_layer("embedding").l2 == 0.1
    np.testing.assert_array_equal(loaded.predict(batch(), verbose=0), model.predict(batch(), verbose=0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shards": 0}, "`shards` must be a whole number >= 1"),
        ({"l2": -1.0}, "`l2` must be a finite number and >= 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureEmbedding(features(), **options)


# The first rows.


def drawn(initializer, shape=(35, 4), index=0, given=(), bounds=None):
    rows = InitialRows(initializer, shape, index, given)
    start, stop = bounds or (0, shape[0])
    matrix = np.full((stop - start, shape[1]), np.nan, "float32")
    for at, chunk in rows.chunks(start, stop, "float32"):
        matrix[at : at + len(chunk)] = ops.convert_to_numpy(chunk)
    return matrix


def test_rows_of_one_chunk_are_the_initializers_own():
    np.testing.assert_array_equal(drawn(UNIFORM), ops.convert_to_numpy(UNIFORM((35, 4))))


def test_chunks_differ_and_follow_from_the_seed(small_chunks):
    first = drawn(UNIFORM)
    assert len(np.unique(first.round(7))) > 130  # 140 numbers, none of them a chunk repeated
    np.testing.assert_array_equal(drawn(keras.initializers.RandomUniform(seed=7)), first)
    assert not np.isin(drawn(keras.initializers.RandomUniform(seed=8)), first).any()
    # Another table of the layer starts with other numbers, and any part of a table is part of the whole.
    assert not np.isin(drawn(UNIFORM, index=1), first).any()
    np.testing.assert_array_equal(drawn(UNIFORM, bounds=(8, 31)), first[8:31])


@pytest.mark.parametrize(
    "name",
    ["uniform", "normal", "truncated_normal", "glorot_uniform", "glorot_normal", "he_normal", "lecun_uniform", "ones"],
)
def test_rows_have_the_distribution_of_the_whole_table(name, monkeypatch):
    monkeypatch.setattr(_tables, "CHUNK_BYTES", 16_000)  # 1000 rows
    initializer = keras.initializers.get(name)
    chunked, whole = drawn(initializer, (8000, 4)), ops.convert_to_numpy(initializer((8000, 4)))
    np.testing.assert_allclose(chunked[1000:].std(), whole.std(), rtol=0.03)
    np.testing.assert_allclose(np.abs(chunked).max(), np.abs(whole).max(), rtol=0.3)
    np.testing.assert_allclose(chunked.mean(), whole.mean(), atol=0.02 * whole.std())


def test_other_initializers_see_the_whole_table(small_chunks):
    shapes = []

    def of_my_own(shape, dtype=None):
        shapes.append(tuple(shape))
        return ops.reshape(ops.arange(shape[0] * shape[1], dtype=dtype), shape)

    np.testing.assert_array_equal(drawn(of_my_own, bounds=(8, 31)).ravel(), np.arange(32, 124))
    assert shapes == [(35, 4)]
    scaled_otherwise = keras.initializers.VarianceScaling(input_axes=[1], output_axes=[0], seed=1)
    np.testing.assert_array_equal(drawn(scaled_otherwise), ops.convert_to_numpy(scaled_otherwise((35, 4))))
    in_turn = keras.initializers.RandomUniform(seed=keras.random.SeedGenerator(3))
    again = keras.initializers.RandomUniform(seed=keras.random.SeedGenerator(3))
    np.testing.assert_array_equal(drawn(in_turn), ops.convert_to_numpy(again((35, 4))))


def test_given_rows_may_lie_in_several_chunks(small_chunks):
    matrix = np.arange(21 * 4, dtype="float32").reshape(21, 4)
    specs = [Categorical("a", size=4, dim=4), Categorical("b", size=21, dim=4, pretrained=matrix)]
    for shards in (1, 3):
        rows = values(built(specs, shards=shards))
        np.testing.assert_array_equal(rows[8:29], matrix)
        assert (np.abs(rows[:8]) <= 0.05).all()


def test_a_table_written_in_place_is_the_table_made_whole(small_chunks, monkeypatch):
    in_place = values(built(features(), shards=2))
    monkeypatch.setattr(_backend, "can_write_rows", lambda: False)
    np.testing.assert_array_equal(values(built(features(), shards=2)), in_place)


@pytest.mark.tensorflow
def test_no_more_than_a_chunk_is_drawn_at_a_time(small_chunks, monkeypatch):
    written, write = [], _backend.write_rows
    monkeypatch.setattr(
        _backend, "write_rows", lambda table, at, rows: (written.append(len(rows)), write(table, at, rows))
    )
    built([Categorical("user", size=33, dim=4)])
    assert written == [10, 10, 10, 5]


def test_a_weight_that_keras_starts_later_starts_whole(small_chunks):
    """A model whose layers are built while Keras traces it: variables get their values afterwards."""
    specs = [Categorical("user", size=33, dim=4)]

    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding = FeatureEmbedding(specs, UNIFORM)

        def call(self, inputs):
            return self.embedding.concatenate(self.embedding(inputs))

    with keras.StatelessScope():
        late = Late()
        late.embedding.build()
    np.testing.assert_array_equal(values(late.embedding), drawn(UNIFORM))


def test_tables_of_one_layer_start_different():
    frozen, trained = Categorical("a", size=9, dim=4, trainable=False), Categorical("b", size=9, dim=4)
    first, second = (ops.convert_to_numpy(t) for t in built([frozen, trained]).tables)
    assert not np.isin(first, second).any()


# Sums and means.


def test_sum_and_mean_gradients_against_numpy():
    specs = [
        Sequence("a", size=8, dim=4, length=5),
        Sequence("b", size=8, dim=4, length=3, key="a", pooling="sum"),
    ]
    rng = np.random.default_rng(4)
    x = {"a": rng.integers(0, 10, (6, 5)).astype("int32"), "b": rng.integers(0, 10, (6, 3)).astype("int32")}
    x["a"][0] = 0
    g = {name: rng.normal(size=(6, 4)).astype("float32") for name in x}
    embedding = built(specs)
    expected = np.zeros((10, 4), "float32")
    for name, mean in (("a", True), ("b", False)):
        for row, ids in enumerate(x[name]):
            real = ids[ids != 0]
            np.add.at(expected, real, g[name][row] / (max(len(real), 1) if mean else 1))
    table = embedding.tables[0]

    def total():
        vectors = embedding(x)
        return sum(ops.sum(vectors[name] * g[name]) for name in x)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = total()
        gradient = tape.gradient(value, table.value)
        assert 0 not in gradient.indices  # padding is not read
        gradient = tf.convert_to_tensor(gradient)
    else:
        import jax

        def of_rows(rows):
            with keras.StatelessScope(state_mapping=[(table, rows)]):
                return total()

        gradient = jax.grad(of_rows)(table.value)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), expected, atol=1e-5)


@pytest.mark.tensorflow
def test_sums_and_means_never_hold_batch_by_length_by_width():
    import tensorflow as tf

    embedding = built(
        [Sequence("a", size=8, dim=4, length=5), Categorical("b", size=8, dim=4, multi_hot=True, length=5)]
    )

    def step(x):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(embedding.concatenate(embedding(x)))
        return tape.gradient(total, embedding.tables[0].value).values

    ids = tf.TensorSpec((6, 5), tf.int32)
    graph = tf.function(step, autograph=False).get_concrete_function({"a": ids, "b": ids}).graph
    assert not [
        op.name for op in graph.get_operations() for out in op.outputs if out.shape.rank == 3 and 5 in out.shape
    ]


@pytest.mark.tensorflow
def test_compiled_by_xla_the_vectors_are_the_same_and_shards_are_refused():
    import tensorflow as tf

    one, split = built(features()), built(features(), shards=2)
    compiled = tf.function(lambda x: one(x), jit_compile=True, autograph=False)
    assert_same_vectors(one, compiled, batch())
    with pytest.raises(ValueError, match=r"`jit_compile` must be False on TensorFlow.*shards=2"):
        tf.function(lambda x: split(x), jit_compile=True, autograph=False)(batch())


# Sequences that stay sequences.


def test_a_sequence_without_pooling():
    specs = [Categorical("item", size=8, dim=4), Sequence("history", size=8, dim=4, key="item", length=5, pooling=None)]
    x = {"item": np.array([2, 3]), "history": np.array([[4, 99, 4, 0, 0], [0, 0, 0, 0, 0]], "int32")}
    embedding = built(specs)
    vectors = embedding(x)
    table = values(embedding)
    np.testing.assert_array_equal(ops.convert_to_numpy(vectors["history"][0, :3]), table[[4, 1, 4]])
    np.testing.assert_array_equal(ops.convert_to_numpy(vectors["history"])[x["history"] == 0], 0)
    symbolic = embedding(make_inputs(specs))
    assert {name: v.shape for name, v in symbolic.items()} == {"item": (None, 4), "history": (None, 5, 4)}
    copy = FeatureEmbedding.from_config(embedding.get_config())
    assert copy.features[1].pooling is None
    with pytest.raises(
        ValueError, match=r"`pooling` must be 'mean', 'sum' or 'max'.*Received: pooling=None.*'history'"
    ):
        embedding.concatenate(vectors)
    assert embedding.concatenate({"item": vectors["item"]}).shape == (2, 4)


# The penalty.


def penalty_oracle(embedding, x, l2, rows):
    """Every vector that is looked up, one after the other."""
    table, total = values(embedding), 0.0
    (group,) = embedding._groups
    for feature in [f for f in embedding.features if f.name in group.offsets]:
        for i in np.ravel(x[feature.name]):
            if feature.shape and i == 0:
                continue
            i = i if 0 <= i < feature.num_ids else 1
            total += float((table[group.offsets[feature.name] + i] ** 2).sum())
    return l2 * total / rows


@pytest.mark.parametrize("shards", [1, 3])
def test_penalty_against_numpy(shards):
    specs = [*features()[:4], Sequence("seen", size=8, dim=4, length=4, key="item", pooling=None), *features()[4:]]
    x = {**batch(), "seen": np.array([[3, 3, 1, 0]] * 12, "int32")}
    x["user"][:3] = (0, 0, 99)
    embedding = built(specs, shards=shards, l2=0.3)
    embedding(x, training=True)
    (penalty,) = embedding.losses
    np.testing.assert_allclose(float(penalty), penalty_oracle(embedding, x, 0.3, 12), rtol=1e-5)
    embedding(x)
    assert not embedding.losses


def test_frozen_tables_are_not_penalised():
    specs = [Categorical("a", size=8, dim=4, trainable=False), Categorical("b", size=8, dim=2)]
    embedding = FeatureEmbedding(specs, "ones", l2=1.0)
    embedding({"a": np.array([2, 2, 2]), "b": np.array([3, 4, 3])}, training=True)
    np.testing.assert_allclose(float(embedding.losses[0]), 2.0)  # three vectors (1, 1), a third each


@pytest.mark.tensorflow
def test_gradient_of_the_penalty_is_sparse():
    import tensorflow as tf

    embedding = built([Categorical("a", size=50, dim=4)], l2=0.5)
    with tf.GradientTape() as tape:
        embedding({"a": np.array([7, 7, 9, 8])}, training=True)
        penalty = embedding.losses[0]
    gradient = tape.gradient(penalty, embedding.tables[0].value)
    assert isinstance(gradient, tf.IndexedSlices) and len(gradient.indices) == 4
    table = values(embedding)
    expected = np.zeros_like(table)
    np.add.at(expected, [7, 7, 9, 8], 0.5 * 2 * table[[7, 7, 9, 8]] / 4)
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, atol=1e-7)
