"""Vectors of one thing made one, and rows whose values are missing in training."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import sample_of, small_arguments

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, Embedding, FeatureFusion, Numeric, Sequence, SharedBottom
from mtl_zoo.layers import AttentionFusion, FeatureEmbedding, GatedFusion

RNG = np.random.default_rng(0)
VECTORS = [RNG.normal(size=(5, width)).astype("float32") for width in (3, 5, 2)]
QUERY = RNG.normal(size=(5, 4)).astype("float32")
TASKS = [BinaryTask("click"), BinaryTask("like")]


def array(x):
    return ops.convert_to_numpy(x)


def made(layer, query=False):
    layer.build([v.shape for v in VECTORS], *([QUERY.shape] if query else []))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape, scale=0.5) for w in layer.get_weights()])
    return layer, {w.path.split("/", 1)[1]: array(w) for w in layer.weights}


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def values(w):
    return np.stack([v @ w[f"value_{i}/kernel"] + w[f"value_{i}/bias"] for i, v in enumerate(VECTORS)], axis=1)


def test_gated_fusion_against_numpy():
    layer, w = made(GatedFusion(4))
    gate = softmax(np.concatenate(VECTORS, axis=-1) @ w["gate/kernel"] + w["gate/bias"])
    np.testing.assert_allclose(array(layer.weights_of(VECTORS)), gate, atol=1e-6)
    np.testing.assert_allclose(array(layer(VECTORS)), (gate[..., None] * np.tanh(values(w))).sum(1), atol=1e-6)


def test_cross_attention_against_numpy():
    layer, w = made(AttentionFusion(4, num_heads=2), query=True)
    tokens, asked = values(w), QUERY @ w["query/kernel"] + w["query/bias"]
    heads = {
        part: np.einsum("b...d,dhe->b...he", x, w[f"attention/{part}/kernel"]) + w[f"attention/{part}/bias"]
        for part, x in (("query", asked), ("key", tokens), ("value", tokens))
    }
    weights = softmax(np.einsum("bhe,bmhe->bhm", heads["query"], heads["key"]) / np.sqrt(2))
    mixed = np.einsum("bhm,bmhe->bhe", weights, heads["value"])
    out = "attention/attention_output"
    expected = np.einsum("bhe,hed->bd", mixed, w[f"{out}/kernel"]) + w[f"{out}/bias"]
    np.testing.assert_allclose(array(layer(VECTORS, query=QUERY)), expected, atol=1e-5)


def test_self_attention_of_equal_vectors_is_that_of_one():
    layer, _ = made(AttentionFusion(4))
    weights = layer.get_weights()
    layer.set_weights([np.zeros_like(x) if i < 6 else x for i, x in enumerate(weights)])  # all tokens are zeros
    rows = array(layer(VECTORS))
    np.testing.assert_allclose(rows, rows[:1].repeat(5, axis=0), atol=1e-6)


@pytest.mark.parametrize("layer", [GatedFusion(4), AttentionFusion(4, 1)])
def test_fusions_come_back_from_their_config(layer):
    layer, _ = made(layer)
    again = type(layer).from_config(layer.get_config())
    again.build([v.shape for v in VECTORS])
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(again(VECTORS)), array(layer(VECTORS)))


def specs():
    return [
        Categorical("item", size=9, dim=4),
        Categorical("tags", size=9, dim=3, multi_hot=True, length=3),
        Numeric("age"),
        Sequence("seen", size=9, dim=4, key="item", length=2),
    ]


def inputs(rows=6):
    rng = np.random.default_rng(2)
    return {
        "item": rng.integers(2, 11, rows).astype("int32"),
        "tags": rng.integers(2, 11, (rows, 3)).astype("int32"),
        "age": rng.normal(size=rows).astype("float32"),
        "seen": rng.integers(2, 11, (rows, 2)).astype("int32"),
    }


FUSIONS = [
    FeatureFusion("content", ("tags", "age"), units=5),
    FeatureFusion("content", ("tags", "age", "seen"), how="attention", units=6),
    FeatureFusion("content", ("tags", "seen"), how="attention", units=6, query="item"),
]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_embedding_gives_the_fused_vector_in_place_of_its_parts(fusion):
    apart = FeatureEmbedding(specs())
    apart.build()
    fused = {joined: FeatureEmbedding(specs(), fusions=[fusion], joined=joined) for joined in (False, True)}
    fused[False].build()
    fused[True].build()
    fused[False].tables[0].assign(apart.tables[0])
    fused[False].tables[1].assign(apart.tables[1])
    fused[True].set_weights(fused[False].get_weights())
    x = inputs()
    vectors, found = apart(x), fused[False](x)
    layer = fused[False]._fused["content"]
    query = {} if fusion.query is None else {"query": vectors["item"]}
    expected = layer([vectors[name] for name in fusion.features], **query)
    kept = [f.name for f in specs() if f.name not in fusion.features]
    assert list(found) == [*kept, "content"]
    np.testing.assert_allclose(array(found["content"]), array(expected), atol=1e-6)
    joined = array(fused[False].concatenate(found))
    np.testing.assert_allclose(array(fused[True](x)), joined, atol=1e-6)
    symbolic = fused[True]({n: keras.KerasTensor((None, *v.shape[1:]), v.dtype) for n, v in x.items()})
    assert symbolic.shape[1] == joined.shape[1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), ("shared_bottom", "mmoe", "pepnet")))
def test_every_model_takes_fused_features(name, tmp_path):
    features = [*specs(), Categorical("domain", size=3, dim=2)]
    embedding = Embedding(fusions=FUSIONS[0], missing_rates={"tags": 0.3, "age": 0.3})
    tasks = [*TASKS, BinaryTask("conversion", sample_space="click"), BinaryTask("cart", sample_space="click")]
    if name not in ("esm2",):
        tasks = tasks[:3]
    arguments = small_arguments(name)
    # A funnel's tables are its backbone's.
    of_tables = arguments.get("backbone_options", arguments)
    of_tables["embedding"] = embedding
    model = mtl_zoo.create_model(name, features, tasks, **arguments)
    model.compile("adam", metrics=None, run_eagerly=True)
    x = {**inputs(8), "domain": np.array([2, 3, 4, 2, 3, 4, 2, 3], "int32")}
    click = np.array([0, 1] * 4, "float32")
    y = {"click": click, "like": click, "conversion": click * 0, "cart": click}
    model.fit(x, {task.name: y[task.name] for task in tasks}, verbose=0)
    scores = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    for task in scores:
        np.testing.assert_allclose(loaded[task], scores[task], atol=1e-6)


def test_values_are_missing_in_training_alone():
    keras.utils.set_random_seed(0)
    features = [Categorical("item", size=9, dim=1), Numeric("age", missing="auto"), Numeric("price")]
    embedding = FeatureEmbedding(features, missing_rates={"item": 0.25, "age": 0.5}, initializer="ones")
    n = 4000
    x = {"item": np.full(n, 4, "int32"), "age": np.full(n, 3.0, "float32"), "price": np.full(n, 3.0, "float32")}
    given = set(FeatureEmbedding(features)._places["age"].inputs)
    x |= {name: np.zeros(n, "float32") for name in given - set(x)}
    embedding.build()
    table = np.ones(embedding.tables[0].shape, "float32")
    table[0] = -1.0
    embedding.tables[0].assign(table)
    scored, trained = embedding(x, training=False), embedding(x, training=True)
    assert (array(scored["item"]) == 1).all() and (array(scored["age"])[:, 0] == 3).all()
    assert (array(trained["price"]) == 3).all()
    assert abs((array(trained["item"]) == -1).mean() - 0.25) < 0.03
    age = array(trained["age"])
    assert abs((age[:, 0] == 0).mean() - 0.5) < 0.03
    if age.shape[1] > 1:
        assert ((age[:, 1] == 1) == (age[:, 0] == 0)).all()
    both = (array(trained["item"])[:, 0] == -1) & (age[:, 0] == 0)
    assert abs(both.mean() - 0.125) < 0.03, "features are drawn apart"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"features": "title"}, "`features` must be names"),
        ({"features": ("title",)}, "two features or more"),
        ({"features": ("a", "a")}, "features"),
        ({"features": ("a", "b"), "how": "late"}, "how"),
        ({"features": ("a", "b"), "query": "c"}, "`query` must name another feature, for how='attention'"),
        ({"features": ("a", "b"), "how": "attention", "query": "a"}, "`query` must name another feature"),
        ({"features": ("a", "b"), "how": "attention", "units": 5}, "`num_heads` must divide `units`"),
    ],
)
def test_arguments_of_a_fusion_are_checked(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FeatureFusion("content", **arguments)


@pytest.mark.parametrize(
    "embedding, message",
    [
        ({"fusions": [FeatureFusion("c", ("tags", "nobody"))]}, r"`fusions` of `embedding` must name.*\['nobody'\]"),
        ({"missing_rates": {"nobody": 0.1}}, r"`missing_rates` of `embedding` must name.*\['nobody'\]"),
        ({"missing_rates": {"age": 1.0}}, "missing_rates"),
        ({"missing_rates": 0.1}, "`missing_rates` must be a dict"),
        ({"fusions": [FeatureFusion("item", ("tags", "age"))]}, "`name` of a fusion must not be that of a feature"),
        ({"fusions": ["content"]}, "`fusions` must be FeatureFusions"),
    ],
)
def test_options_of_a_model_are_checked(embedding, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SharedBottom(specs(), TASKS, embedding=Embedding(**embedding))


def test_a_list_without_pooling_cannot_be_fused():
    features = [*specs()[:3], Sequence("seen", size=9, dim=4, key="item", length=2, pooling=None)]
    with pytest.raises(ValueError, match=r"must name features of one embedding that are one vector.*\['seen'\]"):
        FeatureEmbedding(features, fusions=[FeatureFusion("c", ("age", "seen"))])


def test_a_model_of_domains_keeps_the_domain_apart():
    fusion = FeatureFusion("content", ("age", "domain"))
    features = [*specs(), Categorical("domain", size=3, dim=2)]
    with pytest.raises(ValueError, match="`domain` must not be part of a fusion"):
        mtl_zoo.create_model("pepnet", features, TASKS, embedding=Embedding(fusions=[fusion]))
    fused = Embedding(fusions=[FeatureFusion("content", ("age", "tags"))])
    model = mtl_zoo.create_model("pepnet", features, TASKS, embedding=fused, prior=["content"])
    assert model.prior == ["content"]
