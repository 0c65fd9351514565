"""What features may ask of the embedding beyond rows: a layer over a list, another's vector, weights, unknown ids."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo import Categorical, Numeric, Sequence, SharedBottom
from mtl_zoo.features.base import Feature
from mtl_zoo.features.requests import Encoder, InputSpec, Rows
from mtl_zoo.layers import FeatureEmbedding

LENGTH, DIM, NUM_IDS = 4, 3, 9


@keras.saving.register_keras_serializable(package="tests")
class Weighed(keras.layers.Layer):
    """Each row by its product with the query, summed; padding is not looked at but through the mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, rows_shape, query_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, rows, query, mask=None):
        products = ops.sum(rows * query[:, None], axis=-1, keepdims=True)
        return self.scale * ops.sum(ops.where(mask[..., None], products * rows + 1.0, 0.0), axis=1)

    def compute_output_shape(self, rows_shape, query_shape):
        return (rows_shape[0], rows_shape[-1])


@dataclasses.dataclass(frozen=True)
class Asks(Feature):
    """A list of ids with a request of the test's."""

    kind = "asks"
    rows: dict = dataclasses.field(default_factory=dict)

    def input_specs(self):
        specs = {self.name: InputSpec((LENGTH,), "int32")}
        return specs | ({f"{self.name}.weights": InputSpec((LENGTH,), "float32")} if self.rows.get("weights") else {})

    def embed(self):
        return Rows(**{"table": "item", "num_ids": NUM_IDS, "dim": DIM, **self.rows})

    @property
    def share_key(self):
        return None


def ids(rows=7, seed=0):
    drawn = np.random.default_rng(seed).integers(0, NUM_IDS, (rows, LENGTH)).astype("int32")
    drawn[0] = 0
    return drawn


def item():
    return Categorical("item", num_ids=NUM_IDS, size=NUM_IDS - 2, dim=DIM)


def table_of(embedding):
    return ops.convert_to_numpy(embedding.tables[0])[:NUM_IDS]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("asked", ["item", "age", "tags"])
def test_an_encoder_of_a_list_gets_rows_mask_and_query(joined, asked):
    width = {"item": DIM, "age": 1, "tags": DIM}[asked]
    others = {"item": item(), "age": Numeric("age"), "tags": Asks("tags", rows={"pooling": "mean"})}
    history = Asks("history", rows={"pooling": None, "encoder": Encoder(Weighed(), "history", query=asked)})
    embedding = FeatureEmbedding([history, *others.values()], joined=joined)
    embedding.build()
    x = {
        "history": ids(),
        "tags": ids(seed=2),
        "item": ids(seed=1)[:, 0],
        "age": np.linspace(-1, 1, 7).astype("float32"),
    }
    table = table_of(embedding)
    real = (x["tags"] != 0)[..., None]
    mean = (table[x["tags"]] * real).sum(1) / np.maximum(real.sum(1), 1)
    query = {"item": table[x["item"]], "age": x["age"][:, None], "tags": mean}[asked]
    assert query.shape[1] == width
    rows, mask = table[x["history"]], (x["history"] != 0)[..., None]
    products = (rows * query[:, None]).sum(-1, keepdims=True)
    expected = ((products * rows + 1.0) * mask).sum(1)
    found = embedding(x)
    found = found[:, :DIM] if joined else found["history"]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-6)
    assert (ops.convert_to_numpy(found)[0] == 0).all()


@pytest.mark.parametrize("query", ["nobody", "raw", "history"])
def test_a_query_that_is_no_vector_is_refused(query):
    history = Asks("history", rows={"pooling": None, "encoder": Encoder(Weighed(), "history", query=query)})
    with pytest.raises(ValueError, match=rf"`query` of feature 'history'.*'{query}'.*\['item'\]"):
        FeatureEmbedding([history, item(), Asks("raw", rows={"pooling": None})])


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_weights_of_a_list(pooling):
    lists = [Asks("a", rows={"pooling": pooling, "weights": True}), Asks("b", rows={"pooling": pooling})]
    embedding = FeatureEmbedding(lists)
    embedding.build()
    weights = np.random.default_rng(3).normal(size=(7, LENGTH)).astype("float32")
    x = {"a": ids(), "a.weights": weights, "b": ids(seed=4)}
    table, real = table_of(embedding), x["a"] != 0
    expected = (table[x["a"]] * (weights * real)[..., None]).sum(1)
    if pooling == "mean":
        total = (np.abs(weights) * real).sum(1, keepdims=True)
        expected = expected / np.where(total > 0, total, 1)
    found = embedding(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found["a"]), expected, atol=1e-6)
    ones = embedding({**x, "b": x["a"], "a.weights": np.ones_like(weights)})
    np.testing.assert_allclose(ops.convert_to_numpy(ones["a"]), ops.convert_to_numpy(ones["b"]), atol=1e-6)


def test_unknown_ids_are_drawn_in_training_alone():
    keras.utils.set_random_seed(0)
    known = Categorical("user", size=50, dim=1, unknown_rate=0.25)
    specs = [known, Categorical("city", size=50, dim=1), Sequence("seen", size=50, dim=1, length=2, unknown_rate=0.5)]
    embedding = FeatureEmbedding(specs, initializer="ones")
    embedding.build()
    table = np.ones(embedding.tables[0].shape, "float32")
    for name in ("user", "city", "seen"):
        table[embedding._groups[0].offsets[name] + 1] = -1.0  # the row of unknown values
    embedding.tables[0].assign(table)
    n = 4000
    x = {"user": np.full(n, 7, "int32"), "city": np.full(n, 7, "int32"), "seen": np.full((n, 2), 7, "int32")}
    scored = {name: ops.convert_to_numpy(v) for name, v in embedding(x, training=False).items()}
    assert all((v == 1).all() for v in scored.values())
    trained = {name: ops.convert_to_numpy(v) for name, v in embedding(x, training=True).items()}
    assert (trained["city"] == 1).all()
    assert abs((trained["user"] == -1).mean() - 0.25) < 0.03
    assert abs((trained["seen"] == 0).mean() - 0.5) < 0.03  # one of two
    missing = {name: np.zeros_like(v) for name, v in x.items()}
    assert (ops.convert_to_numpy(embedding(missing, training=True)["user"]) == 1).all(), "a missing value stays missing"


def test_a_rate_of_unknown_ids_is_checked_and_kept():
    with pytest.raises(ValueError, match="unknown_rate"):
        Categorical("user", size=5, unknown_rate=1.0)
    feature = Categorical("user", size=5, unknown_rate=0.1)
    assert type(feature).from_config({k: v for k, v in feature.get_config().items() if k != "kind"}).unknown_rate == 0.1
    assert "unknown_rate" not in Categorical("user", size=5).get_config(), "saved features of 0.1.0 keep their hash"


@pytest.mark.extended
@pytest.mark.tensorflow
def test_the_row_of_unknown_values_is_trained():
    rng = np.random.default_rng(0)
    x = {"user": rng.integers(2, 52, 512).astype("int32")}
    y = {"click": np.ones(512, "float32")}

    def move(rate):
        from mtl_zoo import BinaryTask

        keras.utils.set_random_seed(1)
        model = SharedBottom([Categorical("user", size=50, dim=2, unknown_rate=rate)], [BinaryTask("click")])
        model.compile("adam", metrics=None)
        table = next(w for w in model.weights if "table" in w.path)
        before = ops.convert_to_numpy(table)[1].copy()
        model.fit(x, y, batch_size=64, epochs=2, verbose=0)
        return np.abs(ops.convert_to_numpy(table)[1] - before).max()

    assert move(0.0) == 0
    assert move(0.2) > 1e-3
