"""Two towers, in-batch softmax: its equation in NumPy, what must not matter to it, and models that have it."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import FAMILIES, small_arguments

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, RetrievalTask, Sequence, _pairs
from mtl_zoo.losses import Batch
from mtl_zoo.recommend import ExactIndex
from mtl_zoo.tasks._retrieval_loss import SampledSoftmax

RNG = np.random.default_rng(0)
ROWS, WIDTH = 12, 3
U, V = RNG.normal(size=(2, ROWS, WIDTH)).astype("float32")
IDS = np.array([2, 3, 4, 2, 5, 6, 7, 3, 8, 9, 2, 70_000], "int32")
SHARES = RNG.uniform(0.01, 0.2, 100_000).astype("float32")[IDS]
OBSERVED = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1], "float32")


def rows_of(loss, u=U, v=V, ids=IDS, shares=SHARES, observed=OBSERVED):
    packed = _pairs.pack(*map(ops.convert_to_tensor, (u, v, shares, ids)))
    return ops.convert_to_numpy(loss(None, packed, Batch(None, None, observed=ops.convert_to_tensor(observed))))


def oracle(temperature=0.1, hard=None, correction=True):
    found = []
    for i in range(ROWS):
        logits = (V @ U[i]).astype("float64") / temperature - (np.log(SHARES) if correction else 0.0)
        others = [j for j in range(ROWS) if j != i and IDS[j] != IDS[i] and OBSERVED[j]]
        negatives = np.sort(logits[others])[::-1][:hard]
        found.append(np.log(np.exp(logits[i]) + np.exp(negatives).sum()) - logits[i])
    return np.array(found)


@pytest.mark.parametrize("hard", [None, 2, 50])
@pytest.mark.parametrize("correction", [True, False])
def test_the_loss_is_that_of_the_formula(hard, correction):
    found = rows_of(SampledSoftmax(0.5, hard, correction))
    np.testing.assert_allclose(found, oracle(0.5, hard, correction), rtol=1e-4, atol=1e-5)


def test_the_order_of_rows_does_not_matter():
    order = np.random.default_rng(1).permutation(ROWS)
    loss = SampledSoftmax()
    moved = rows_of(loss, U[order], V[order], IDS[order], SHARES[order], OBSERVED[order])
    np.testing.assert_allclose(moved, rows_of(loss)[order], rtol=1e-4, atol=1e-5)


def test_temperature_is_a_scale_of_the_vectors_and_shares_count_up_to_a_factor():
    np.testing.assert_allclose(
        rows_of(SampledSoftmax(0.25)), rows_of(SampledSoftmax(1.0), u=4 * U), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        rows_of(SampledSoftmax()), rows_of(SampledSoftmax(), shares=SHARES / 7), rtol=1e-3, atol=1e-4
    )
    even = np.full(ROWS, 0.1, "float32")
    np.testing.assert_allclose(
        rows_of(SampledSoftmax(), shares=even), rows_of(SampledSoftmax(correction=False)), rtol=1e-4, atol=1e-5
    )


def test_other_rows_of_the_same_item_and_rows_without_a_label_change_nothing():
    changed = V.copy()
    changed[[3, 10]] += 5  # of item 2, as row 0; and rows that are not observed
    changed[[4, 9]] -= 5
    assert rows_of(SampledSoftmax(), v=changed)[0] == rows_of(SampledSoftmax())[0]


@pytest.mark.tensorflow
def test_log_q_learns_how_often_an_item_is_chosen_and_without_it_that_is_lost():
    """One kind of user, items of a Zipf law: the scores to be learned are the log-probabilities, up to a constant.
    Without log Q, frequent items are pushed down as often as up, and almost nothing of it is left."""
    import tensorflow as tf

    items, batch, steps = 30, 16, 500
    share = 1 / np.arange(1, items + 1)
    share = (share / share.sum()).astype("float32")
    drawn = np.random.default_rng(0).choice(items, (steps, batch), p=share / share.sum()).astype("int32")
    slopes = {}
    for correction in (True, False):
        score, loss = tf.Variable(tf.zeros(items)), SampledSoftmax(1.0, None, correction)

        @tf.function
        def step(ids, score=score, loss=loss):
            with tf.GradientTape() as tape:
                one, of_item = tf.ones((batch, 1)), tf.gather(score, ids)[:, None]
                value = tf.reduce_mean(loss(None, _pairs.pack(one, of_item, tf.gather(share, ids), ids)))
            score.assign_sub(1.0 * tf.convert_to_tensor(tape.gradient(value, score)))

        for ids in drawn:
            step(tf.constant(ids))
        slopes[correction] = np.polyfit(np.log(share), score.numpy(), 1)[0]
    assert slopes[True] == pytest.approx(1, abs=0.1) and slopes[False] == pytest.approx(0, abs=0.1), slopes


# In models.


def features():
    return [
        Categorical("user_id", size=20, dim=4, side="user"),
        Sequence("history", size=15, dim=4, key="item_id", length=3, side="user"),
        Categorical("item_id", size=15, dim=4, side="item"),
        Numeric("price", side="item"),
        Categorical("domain", size=3, dim=2),
    ]


def data(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "user_id": rng.integers(0, 22, rows).astype("int32"),
        "history": rng.integers(0, 17, (rows, 3)).astype("int32"),
        "item_id": rng.integers(0, 17, rows).astype("int32"),
        "price": rng.normal(size=rows).astype("float32"),
        "domain": rng.integers(2, 5, rows).astype("int32"),
    }
    click = rng.integers(0, 2, rows).astype("float32")
    y = {"click": click, "conversion": click * rng.integers(0, 2, rows), "watch": rng.integers(0, 2, rows)}
    return x, {name: values.astype("float32") for name, values in y.items()}


TASKS = (
    BinaryTask("click"),
    RetrievalTask("watch", tower_units=(8, 4)),
    BinaryTask("conversion", sample_space="click"),
)
X, Y = data()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("shared_bottom", "mose", "esmm") else pytest.mark.slow)
        for n in (*FAMILIES, "pepnet", "single_task", "serial")
    ],
)
def test_any_model_ranks_beside_it(name, tmp_path):
    model = mtl_zoo.create_model(name, features(), TASKS, **small_arguments(name))
    model.compile("sgd", run_eagerly=True)
    logs = model.fit(X, Y, batch_size=32, verbose=0).history
    assert np.isfinite([values[-1] for values in logs.values()]).all() and {"watch_loss", "watch_auc"} <= set(logs)
    scores = model.predict(X, verbose=0)
    users = model.user_vectors({n: X[n] for n in ("user_id", "history")})
    items = model.item_vectors({n: X[n] for n in ("item_id", "price")})
    assert users.shape == items.shape == (64, 4)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((users * items).sum(axis=1), scores["watch"][:, 0], atol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for output, values in loaded.predict(X, verbose=0).items():
        np.testing.assert_allclose(values, scores[output], atol=1e-6)
    assert np.array(loaded.get_layer("watch_pair").counts).sum() == 64
    np.testing.assert_allclose(loaded.user_vectors(X), users, atol=1e-6)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = mtl_zoo.SharedBottom(features(), TASKS, bottom_units=(8,), tower_units=())
    made.compile("sgd", run_eagerly=True)
    return made


def gradients(model, labels):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        losses = model.row_losses(Batch(X, labels), model(X, training=True)).means()
    found = tape.gradient(losses["watch"], [v.value for v in model.trainable_variables])
    return {
        v.path: tf.convert_to_tensor(g).numpy()
        for v, g in zip(model.trainable_variables, found, strict=True)
        if g is not None
    }


@pytest.mark.tensorflow
def test_it_shares_the_embedding_and_nothing_of_the_rankers(model):
    reached = gradients(model, Y)
    # The domain, of width 2, is on no side.
    assert {path for path, gradient in reached.items() if not gradient.any()} == {"embedding/table_2"}
    assert not any("bottom" in path or "click" in path for path in reached)
    assert {f"watch_{side}_linear" for side in ("user", "item")} <= {path.split("/")[-2] for path in reached}


@pytest.mark.tensorflow
def test_the_loss_is_the_mean_over_positive_rows(model):
    logits = model(X, training=False)
    rows = model.row_losses(Batch(X, Y), logits)
    values, weights = (ops.convert_to_numpy(part) for part in rows.rows["watch"])
    np.testing.assert_array_equal(weights, Y["watch"])
    assert float(rows.means()["watch"]) == pytest.approx(values[Y["watch"] == 1].mean(), rel=1e-5)
    without = {**Y, "watch": np.zeros(64, "float32")}
    assert float(model.row_losses(Batch(X, without), logits).means()["watch"]) == 0
    bad = {**Y, "watch": np.where(np.arange(64) == 3, 0.5, Y["watch"]).astype("float32")}
    assert np.isnan(float(model.row_losses(Batch(X, bad), logits).means()["watch"]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("balancing", ["pcgrad", "uncertainty", "gls", pytest.param("mgda", marks=pytest.mark.slow)])
def test_balancing_methods_weigh_its_loss(balancing):
    model = mtl_zoo.SharedBottom(features(), TASKS, bottom_units=(8,), tower_units=())
    model.compile("adam", run_eagerly=True, balancing=balancing)
    before = [np.array(v) for v in model.get_layer("watch_item_linear").weights]
    logs = model.fit(X, Y, batch_size=32, epochs=1, verbose=0).history
    assert np.isfinite(logs["watch_loss"]).all()
    assert any(
        (a != np.array(b)).any() for a, b in zip(before, model.get_layer("watch_item_linear").weights, strict=True)
    )


def test_alone_it_is_a_model_of_two_towers():
    model = mtl_zoo.SharedBottom(features(), [RetrievalTask("watch", tower_units=(4,))])
    assert set(model.output) == {"watch"} and model.predict(X, verbose=0)["watch"].shape == (64, 1)


def test_from_a_table_to_an_index(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user": rng.choice(["ann", "bob", "eve"], 60),
            "age": rng.normal(size=60),
            "item": rng.integers(100, 110, 60),
            "genre": rng.choice(["x", "y"], 60),
            "watch": 1,
        }
    )
    specs = [
        Categorical("user", dim=4, side="user"),
        Numeric("age", side="user"),
        Categorical("item", dim=4, side="item"),
        Categorical("genre", dim=4, side="item"),
    ]
    tasks = [RetrievalTask("found", label="watch", item="item", tower_units=(4,))]
    model = mtl_zoo.SharedBottom(FeatureTransform(specs, tasks).fit(table))
    items = table[["item", "genre"]].drop_duplicates("item")
    index = ExactIndex().build(items["item"], model.item_vectors(items))
    users = table[["user", "age"]].iloc[:3]
    ids, scores = index.query(model.user_vectors(users), 4)
    pairs = users.loc[users.index.repeat(4)].assign(item=ids.ravel())
    pairs = pairs.merge(items, on="item", how="left")
    np.testing.assert_allclose(model.predict(pairs, verbose=0)["found"].reshape(3, 4), scores, atol=1e-5)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "m.keras").user_vectors(users), model.user_vectors(users), atol=1e-6
    )
    model.export(tmp_path / "exported")  # which compares what it wrote with the model
    with pytest.raises(ValueError, match="age"):
        model.user_vectors(users[["user"]])


def test_vectors_refuse_what_they_cannot_read(model):
    for call, said in [
        (lambda: model.user_vectors({"user_id": [2]}), "Missing: .'history'"),
        (lambda: model.item_vectors({"item_id": [99], "price": [0.0]}), "item_id"),
        (lambda: model.item_vectors(pd.DataFrame({"item_id": [2]})), "fitted FeatureTransform"),
        (lambda: model.item_vectors([2]), "table or a dict"),
        (lambda: model.item_vectors(X, task="click"), r"Received: 'click'. Expected: \['watch'\]"),
        (lambda: model.side_tower("seller"), "`side`"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    plain = mtl_zoo.SharedBottom(features(), [BinaryTask("click")])
    with pytest.raises(ValueError, match="retrieval task"):
        plain.user_vectors(X)


@pytest.mark.parametrize(
    ("specs", "task", "said"),
    [
        ([Categorical("a", size=3), Categorical("b", size=3, side="item")], {}, "side='user'"),
        ([Categorical("a", size=3, side="user"), Numeric("b", side="item")], {}, "item's id"),
        ([Categorical(n, size=3, side="item") for n in "ab"], {}, r"one of \['a', 'b'\]"),
        ([Categorical("a", size=3, side="user"), Categorical("b", size=3, side="item")], {"item": "a"}, "item='a'"),
    ],
)
def test_features_must_have_sides(specs, task, said):
    with pytest.raises(ValueError, match=said):
        mtl_zoo.SharedBottom(specs, [RetrievalTask("watch", **task)])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 0),
        ("tower_units", ()),
        ("hard_negatives", 0),
        ("item", ""),
        ("correction", "yes"),
        ("loss", "mse"),
    ],
)
def test_options_are_checked(option, value):
    with pytest.raises(ValueError, match=option):
        RetrievalTask("watch", **{option: value})
