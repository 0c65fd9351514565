"""Features that only training knows: they teach the order without bias, and no score or export needs their columns."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import compile_eagerly, features, inputs, labels_for, sample_of, small_arguments, tasks_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, RegressionTask
from mtl_zoo.export import make_scorer, quantize
from mtl_zoo.layers import BiasedLogit, TrainingOnly
from mtl_zoo.tasks import Bias, task_from_config

POSITION = Categorical("position", size=8, dim=2, bias=True)
ITEM = Categorical("item", size=20, dim=4)
CLICK = BinaryTask("click", bias="add")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def small(task=CLICK, given=(ITEM, POSITION)):
    return mtl_zoo.SharedBottom(list(given), task, bottom_units=(4,), tower_units=())


# The layers.


def test_a_biased_logit_is_a_sum_or_in_training_a_product_of_probabilities():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 1)).astype("float32")
    for training in (True, False):
        np.testing.assert_allclose(ops.convert_to_numpy(BiasedLogit("add")(a, b, training=training)), a + b, rtol=1e-6)
    p = sigmoid(ops.convert_to_numpy(BiasedLogit("multiply")(a, b, training=True)))
    np.testing.assert_allclose(p, sigmoid(a) * sigmoid(b), rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(BiasedLogit("multiply")(a, b)), a)


def test_ids_are_dropped_together_in_training_and_always_outside_of_it():
    ids = {"a": np.full(4000, 3, "int32"), "b": np.full((4000, 2), 5, "int32")}
    kept = {n: ops.convert_to_numpy(x) for n, x in TrainingOnly(0.25, seed=0)(ids, training=True).items()}
    gone = kept["a"] == 0
    assert gone.mean() == pytest.approx(0.25, abs=0.03)
    assert ((kept["b"] == 0).all(axis=1) == gone).all() and (kept["b"][~gone] == 5).all()
    assert all((ops.convert_to_numpy(x) == 0).all() for x in TrainingOnly(0.25)(ids, training=False).values())
    unchanged = TrainingOnly(0.0)(ids, training=True)
    assert (ops.convert_to_numpy(unchanged["a"]) == 3).all()


# The options.


def test_a_bias_is_kept_in_a_tasks_config_and_asks_for_a_level():
    for bias in ("add", Bias("multiply", units=(8,), dropout=0.2)):
        task = BinaryTask("click", bias=bias)
        assert task_from_config(task.get_config()) == task
    assert "bias" not in BinaryTask("click").get_config()
    assert BinaryTask("click", bias="add").bias.rate == 0.1 and Bias("multiply").rate == 0
    with pytest.raises(ValueError, match="`dropout` must be above 0 with how='add'"):
        Bias("add", dropout=0)
    with pytest.raises(ValueError, match="`bias` must be None, 'add', 'multiply' or a Bias"):
        BinaryTask("click", bias="times")


@pytest.mark.parametrize(
    ("given", "task", "words"),
    [
        ((ITEM, POSITION), BinaryTask("click"), r"`tasks` must hold one with `bias=`.*\['position'\]"),
        ((ITEM,), CLICK, r"`features` must hold one with bias=True.*\['click'\]"),
        ((POSITION,), CLICK, "`features` must hold one without bias=True"),
    ],
)
def test_features_and_tasks_must_agree(given, task, words):
    with pytest.raises(ValueError, match=words):
        small(task, given)


# Models.


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), ("shared_bottom", "esmm", "mose")))
@pytest.mark.parametrize("how", ["add", pytest.param("multiply", marks=pytest.mark.slow)])
def test_every_model_trains_with_it_and_scores_without(name, how):
    tasks = [BinaryTask("click", bias=how) if task.name == "click" else task for task in tasks_of(name)]
    model = mtl_zoo.create_model(name, [*features(), POSITION], tasks, **small_arguments(name))
    x, rng = inputs(), np.random.default_rng(0)
    model.compile("sgd", run_eagerly=True)
    with_position = {**x, "position": rng.integers(2, 10, 64).astype("int32")}
    kernel = model.get_layer("click_bias_head").kernel
    before = ops.convert_to_numpy(kernel).copy()
    model.train_on_batch(with_position, labels_for(model))
    assert (ops.convert_to_numpy(kernel) != before).any()
    scores = model.predict(x, verbose=0)
    for name, values in model.predict(with_position, verbose=0).items():
        np.testing.assert_array_equal(values, scores[name])
    with pytest.raises(ValueError, match="position"):
        model.train_on_batch(x, labels_for(model))


def test_the_body_reads_none_of_it_and_scores_have_the_level_of_unknown_positions():
    model = small()
    assert [feature.name for feature in model.get_layer("embedding").features] == ["item"]
    x = {"item": np.arange(2, 6, dtype="int32")}
    logit = keras.Model(model.input, model.get_layer("click_head").output)
    bias = keras.Model(model.input, model.get_layer("click_bias_head").output)
    both = {**x, "position": np.array([3, 4, 5, 6], "int32")}
    expected = ops.convert_to_numpy(logit(both)) + ops.convert_to_numpy(bias(both, training=False))
    assert len(np.unique(ops.convert_to_numpy(bias(both, training=False)))) == 1
    np.testing.assert_allclose(model.predict(x, verbose=0)["click"], sigmoid(expected), rtol=1e-5)


def log_of_clicks(how, rows=20_000, seed=0):
    """Some items stand on top whatever they are worth, and what stands on top is clicked more."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=20)
    item = rng.integers(0, 20, rows)
    position = np.clip(item % 8 + rng.integers(-3, 4, rows), 0, 7)
    p = sigmoid(worth[item] - 0.5 * position) if how == "add" else sigmoid(worth[item]) / (1 + position)
    return {"item": item, "position": position, "click": (rng.random(rows) < p).astype(int)}, worth


@pytest.mark.parametrize("how", ["add", "multiply"])
def test_the_order_without_bias_is_found_where_ignoring_the_position_is_wrong(how):
    log, worth = log_of_clicks(how)
    keras.utils.set_random_seed(0)
    # Of four ReLUs all may be dead at the start.
    model = mtl_zoo.SharedBottom([ITEM, POSITION], BinaryTask("click", bias=how), bottom_units=(16,), tower_units=())
    model.compile(keras.optimizers.Adam(0.1), metrics=None)
    x = {"item": (log["item"] + 2).astype("int32"), "position": (log["position"] + 2).astype("int32")}
    model.fit(x, {"click": log["click"].astype("float32")}, batch_size=2000, epochs=16, verbose=0)
    scores = model.predict({"item": np.arange(2, 22, dtype="int32")}, verbose=0)["click"][:, 0]
    # A model of the items alone learns their click rates.
    naive = pd.Series(log["click"]).groupby(log["item"]).mean()
    by_bias, by_rate = (np.corrcoef(pd.Series(s).rank(), pd.Series(worth).rank())[0, 1] for s in (scores, naive))
    assert by_bias > 0.9 and by_bias > by_rate + 0.2, (by_bias, by_rate)


# Tables, files, exports.


@pytest.mark.tensorflow
def test_tables_and_exports_to_be_scored_need_no_position(tmp_path):
    import tensorflow as tf

    log, _ = log_of_clicks("add", 200)
    table = pd.DataFrame(log)
    bare = table.drop(columns="position")
    transform = FeatureTransform([Categorical("item", dim=4), Categorical("position", dim=2, bias=True)], CLICK)
    model = mtl_zoo.SharedBottom(transform.fit(table), bottom_units=(4,), tower_units=())
    compile_eagerly(model)
    model.fit(table, batch_size=100, verbose=0)
    scores = model.predict(table, verbose=0)["click"]
    assert transform.columns == ("item",) and list(transform.raw_signature()) == ["item"]
    np.testing.assert_array_equal(model.predict(bare, verbose=0)["click"], scores)
    assert len(mtl_zoo.evaluate(model, bare)) == len(mtl_zoo.evaluate(model, table))

    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(bare, verbose=0)["click"], scores, rtol=1e-6)
    assert model.export(tmp_path / "served") == {"item": "item"}
    served = tf.saved_model.load(str(tmp_path / "served"))
    raw = {name: tf.constant(values) for name, values in transform.raw_arrays(table).items()}
    np.testing.assert_allclose(served.score(raw)["click"].numpy(), scores, rtol=1e-5)
    np.testing.assert_allclose(mtl_zoo.make_scorer(model, raw=True)(bare)["click"], scores, rtol=1e-5)

    with pytest.raises(ValueError, match=r"columns of features with bias=True.*\['position'\]"):
        model.fit(bare, verbose=0)
    bare.to_parquet(tmp_path / "bare.parquet")
    stream = mtl_zoo.features.TableStream(tmp_path / "bare.parquet", transform, labels=False)
    np.testing.assert_allclose(model.predict(stream, verbose=0)["click"], scores, rtol=1e-5)
    with pytest.raises(ValueError, match="position"):
        mtl_zoo.features.TableStream(tmp_path / "bare.parquet", transform)


def test_what_reads_arrays_needs_no_position():
    model = mtl_zoo.MMoE([ITEM, POSITION], CLICK, num_experts=2, expert_units=(4,), tower_units=())
    items, places = np.arange(6, dtype="int32"), np.zeros(6, "int32")
    known, bare = {"item": items, "position": places}, {"item": items}
    np.testing.assert_array_equal(*(ops.convert_to_numpy(model(rows)["click"]) for rows in (bare, known)))
    np.testing.assert_array_equal(
        mtl_zoo.gate_report(model, bare).table["weight"], mtl_zoo.gate_report(model, known).table["weight"]
    )
    with pytest.raises(ValueError, match=r"`split` must hold every feature.*item"):
        mtl_zoo.gate_report(model, {"position": places})


def test_its_tables_have_the_options_of_others():
    options = mtl_zoo.Embedding(l2=0.5, table_dtype="int8")
    model = mtl_zoo.SharedBottom([ITEM, POSITION], CLICK, bottom_units=(4,), embedding=options)
    config = model.get_layer("click_bias_embedding").get_config()
    assert (config["l2"], config["table_dtype"]) == (0.5, "int8")
    assert quantize(small()).largest_difference["click"] < 0.05


def test_only_labels_of_events_have_a_bias():
    with pytest.raises(TypeError, match="bias"):
        RegressionTask("watch", bias="add")


@pytest.mark.tensorflow
def test_a_column_that_a_bias_feature_reads_as_well_is_missing_to_it():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({n: rng.integers(0, 5, 40) for n in ("item", "position")}).assign(click=rng.integers(0, 2, 40))
    given = [
        Categorical("item", dim=4),
        Numeric("place", column="position"),
        Categorical("position", dim=2, bias=True),
    ]
    model = mtl_zoo.SharedBottom(FeatureTransform(given, CLICK).fit(table), bottom_units=(4,), tower_units=())
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    expected = model.predict(table.assign(position=3), verbose=0)["click"]
    found = make_scorer(model, raw=True).rank({"position": 3}, {"item": table["item"].to_numpy()})["click"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
