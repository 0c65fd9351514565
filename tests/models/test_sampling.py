"""Scores of models that were trained on sampled rows: corrected wherever they leave the model, or refused by name."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import compile_eagerly

import mtl_zoo
from mtl_zoo import BinaryTask, NegativeSampling, Numeric, RegressionTask
from mtl_zoo.heads import ActionFunnel, CounterfactualTwin, EntireSpace, Towers, TransferChain
from mtl_zoo.models._corrections import Corrections

CLICK, CONVERSION = BinaryTask("click"), BinaryTask("conversion", sample_space="click")
CART, AFTER_CART = BinaryTask("cart", sample_space="click"), BinaryTask("conversion", sample_space="cart")
WATCH, LIKE = RegressionTask("watch", sample_space="click", scale=None), BinaryTask("like")
RATE = 0.05
SAMPLING = NegativeSampling("click", rate=RATE, seed=1)


def logit(p):
    return np.log(p) - np.log1p(-p)


def he(p, rate):
    """He 2014: what a model of the rows that stay says, back to all rows."""
    return p / (p + (1 - p) / rate)


@pytest.mark.parametrize(
    ("head", "tasks"),
    [
        (Towers(), (CLICK, CONVERSION, WATCH)),
        (EntireSpace(), (CLICK, CONVERSION, WATCH)),
        (CounterfactualTwin(), (CLICK, CONVERSION)),
        (ActionFunnel(), (CLICK, CART, CONVERSION)),
        (ActionFunnel(), (CLICK, CART, AFTER_CART)),
        (TransferChain(), (CLICK, CART, AFTER_CART)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_output_is_brought_back_to_all_rows(head, tasks):
    """From the probabilities of a funnel to what they are among the rows that stay, and back."""
    rng = np.random.default_rng(0)
    click, cart, conversion = 10 ** rng.uniform(-4, -0.05, (3, 200))
    given = {"click": click, "cart": cart, "conversion": conversion}
    given["click_and_cart"] = click * cart
    given["click_and_conversion"] = click * conversion * (cart if AFTER_CART in tasks else 1)
    stay = click + RATE * (1 - click)
    sampled, truth = {}, {}
    for output in head.outputs(tasks):
        if output.name == "watch":
            sampled["watch"] = truth["watch"] = rng.normal(size=(200, 1)).astype("float32")
            continue
        p = given[output.name]
        truth[output.name] = p[:, None]
        # Given a click nothing was dropped; on all impressions, the rows that stay are so many fewer.
        sampled[output.name] = logit(p if output.space != "impressions" else p / stay)[:, None].astype("float32")
    np.testing.assert_allclose(he(click / stay, RATE), click, rtol=1e-9)
    found = Corrections(SAMPLING).apply(head.outputs(tasks), tasks, sampled)
    assert set(found) == set(sampled)
    for name, p in truth.items():
        value = ops.convert_to_numpy(found[name])
        expected = p if name == "watch" else logit(p)
        np.testing.assert_allclose(value, expected, atol=2e-4)
    unsampled = Corrections(NegativeSampling("click", rate=1.0)).apply(head.outputs(tasks), tasks, sampled)
    assert all(unsampled[name] is sampled[name] for name in sampled)


def test_extreme_logits_stay_finite():
    tasks, head = (CLICK, CONVERSION), EntireSpace()
    extreme = np.array([-200.0, -30, 0, 30, 200], "float32")
    a, c = (x.reshape(-1, 1) for x in np.meshgrid(extreme, extreme))
    sampled = {"click": a, "conversion": c, "click_and_conversion": np.minimum(a, c)}
    found = Corrections(SAMPLING).apply(head.outputs(tasks), tasks, sampled)
    assert all(np.isfinite(ops.convert_to_numpy(value)).all() for value in found.values())
    # Both are never likelier than the first.
    assert (ops.convert_to_numpy(found["click_and_conversion"]) <= ops.convert_to_numpy(found["click"]) + 1e-4).all()


def small(tasks, name="shared_bottom", **options):
    return mtl_zoo.create_model(name, [Numeric("x")], tasks, tower_units=(), **options)


@pytest.mark.parametrize(
    ("tasks", "sampled", "wrong"),
    [
        ((CLICK, LIKE), "click", r"\['like'\]"),
        ((CLICK, CONVERSION), "conversion", r"\['click'\]"),
        ((CLICK, CONVERSION, RegressionTask("price", scale=None)), "click", r"\['price'\]"),
    ],
)
def test_outputs_that_would_be_wrong_are_refused_by_name(tasks, sampled, wrong):
    model = compile_eagerly(small(tasks))
    y = {task.name: np.ones(4, "float32") for task in tasks}
    with pytest.raises(ValueError, match=rf"outputs {wrong}, whose labels may go"):
        model.fit({"x": np.zeros(4)}, y, sampling=NegativeSampling(sampled, rate=0.5), verbose=0)
    assert not model.corrections


def rows(count=4000):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, count).astype("float32")
    return {"x": x}, (rng.random(count) < np.where(x == 1, 0.1, 0.02)).astype("float32")


def test_scores_everywhere_are_those_of_all_rows(tmp_path):
    keras.utils.set_random_seed(0)
    x, y = rows()
    model = compile_eagerly(small([CLICK], bottom_units=(4,)), keras.optimizers.Adam(0.1))
    model.fit(x, {"click": y}, batch_size=200, sampling=SAMPLING, verbose=0)
    both = {"x": np.array([0.0, 1.0], "float32")}
    scores = model.predict(both, verbose=0)["click"][:, 0]
    raw = ops.convert_to_numpy(model(both)["click"])[:, 0]
    np.testing.assert_allclose(logit(scores.astype("float64")), raw + np.log(RATE), atol=1e-4)
    np.testing.assert_allclose(scores, he(1 / (1 + np.exp(-raw.astype("float64"))), RATE), rtol=1e-4)

    np.testing.assert_allclose(model.predict_on_batch(both)["click"][:, 0], scores, rtol=1e-5)
    # The loss of an evaluation is that of the scores, too.
    p = model.predict(x, verbose=0)["click"][:, 0].astype("float64")
    logloss = -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))
    assert model.evaluate(x, {"click": y}, verbose=0, return_dict=True)["loss"] == pytest.approx(logloss, rel=1e-4)
    table = mtl_zoo.evaluate(model, mtl_zoo.datasets.Split(x, {"click": y})).set_index("metric")["value"]
    assert table["logloss"] == pytest.approx(logloss, rel=1e-4)

    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.corrections == model.corrections
    np.testing.assert_allclose(loaded.predict(both, verbose=0)["click"][:, 0], scores, rtol=1e-6)
    assert not loaded.clone().corrections


@pytest.mark.tensorflow
def test_scorers_and_exports_are_corrected(tmp_path):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    x, y = rows(200)
    model = compile_eagerly(small([CLICK, CONVERSION], "esmm", backbone_options={"bottom_units": (4,)}))
    scorer = mtl_zoo.make_scorer(model)
    before = scorer(x)["click"]
    model.fit(x, {"click": y, "conversion": y}, batch_size=200, sampling=SAMPLING, verbose=0)
    scores = model.predict(x, verbose=0)
    assert not np.allclose(before, scores["click"])
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    exported = served.score({name: tf.constant(value) for name, value in x.items()})
    for name, expected in scores.items():
        np.testing.assert_allclose(scorer(x)[name], expected, rtol=1e-5)
        np.testing.assert_allclose(exported[name].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores["click_and_conversion"], scores["click"] * scores["conversion"], rtol=1e-4)


def test_training_again_needs_the_same_rate():
    x, y = rows(100)
    model = compile_eagerly(small([CLICK], bottom_units=(4,)))
    labels = {"click": y}
    model.fit(x, labels, sampling=SAMPLING, verbose=0)
    model.fit(x, labels, sampling=NegativeSampling("click", rate=RATE, seed=9), verbose=0)
    for given in (None, NegativeSampling("click", rate=0.5)):
        with pytest.raises(ValueError, match="`sampling` must have the same share as before"):
            model.fit(x, labels, sampling=given, verbose=0)
    fresh = compile_eagerly(model.clone())
    fresh.fit(x, labels, verbose=0)
    assert not fresh.corrections


def test_what_fit_cannot_sample_is_refused():
    x, y = rows(100)
    model = compile_eagerly(small([CLICK], bottom_units=(4,)))
    with pytest.raises(TypeError, match="`sampling` must be a NegativeSampling, a BalancedBatches or None"):
        model.fit(x, y, sampling=0.1)
    with pytest.raises(ValueError, match="`validation_split` must be None with `sampling`"):
        model.fit(x, y, sampling=SAMPLING, validation_split=0.1)
    with pytest.raises(ValueError, match="whose rows are batched already"):
        model.fit([(x, y)], sampling=SAMPLING)
    with pytest.raises(ValueError, match="must have the same number of rows. Received: 100 and 99"):
        model.fit(x, y[1:], sampling=SAMPLING)
    focal = compile_eagerly(small([BinaryTask("click", loss="binary_focal_crossentropy")], bottom_units=(4,)))
    with pytest.raises(ValueError, match="`sampling` needs the loss 'binary_crossentropy' for task 'click'"):
        focal.fit(x, y, sampling=SAMPLING)


@pytest.mark.tensorflow
def test_tables_and_streams_are_sampled_alike(tmp_path):
    x, y = rows(600)
    table = pd.DataFrame({**x, "click": y})
    table.to_parquet(tmp_path / "t.parquet")
    transform = mtl_zoo.FeatureTransform(Numeric("x"), CLICK).fit(table)
    found = []
    for data in (table, mtl_zoo.features.TableStream(tmp_path / "t.parquet", transform)):
        keras.utils.set_random_seed(0)
        model = mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())
        compile_eagerly(model)
        history = model.fit(data, batch_size=64, shuffle=False, sampling=SAMPLING, verbose=0).history
        found.append((history["loss"], model.predict(table, verbose=0)["click"]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_task", "esmm"])
def test_the_level_of_sampled_training_is_that_of_the_oracle(name):
    """PCOC against the true probabilities: of sampled training without the correction it would be about 10."""
    keras.utils.set_random_seed(0)
    data = mtl_zoo.load_dataset("synthetic_funnel", size=(400_000, 1000, 50_000))
    tasks = data.tasks if name == "esmm" else data.tasks[:1]
    model = mtl_zoo.create_model(name, data.features[2:], tasks, tower_units=(32,))
    # A rate that falls to 0: the level of the last weights is that of all batches, not of the last few.
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.002, 240)), metrics=None)
    sampling = NegativeSampling("click", rate=0.1)
    model.fit(data.train.inputs, data.train.labels, batch_size=256, sampling=sampling, verbose=0)
    scores = model.predict(data.test.inputs, verbose=0)
    for output, width in (("click", 0.02), ("click_and_conversion", 0.1)):
        if output in scores:
            assert scores[output].sum() / data.test.truth[output].sum() == pytest.approx(1, abs=width)
