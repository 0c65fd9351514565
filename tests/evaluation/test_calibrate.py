"""Calibration after training: what the maps are, that ranks stay, and that every way out of a model goes through it."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from toys import compile_eagerly

import mtl_zoo
from mtl_zoo import BinaryTask, NegativeSampling, Numeric, RegressionTask, calibrate
from mtl_zoo.datasets import Split
from mtl_zoo.evaluation import auc, correct_downsampling, logloss
from mtl_zoo.evaluation.calibrate import _isotonic, _temperature, platt
from mtl_zoo.models._calibration import Affine, Isotonic, calibration_from_config

CLICK, BUY = BinaryTask("click"), BinaryTask("buy", sample_space="click")
every_method = pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])


def drawn(rows=4000, slope=0.5, shift=-1.0, seed=0):
    """Logits, and labels whose true logit is `slope a + shift`."""
    rng = np.random.default_rng(seed)
    a = rng.normal(-1, 2, rows)
    return a, (rng.random(rows) < expit(slope * a + shift)).astype("float64"), rng.uniform(0.5, 2, rows)


def apply(calibration, a):
    return ops.convert_to_numpy(calibration(ops.convert_to_tensor(np.asarray(a, "float32"))))


def test_platt_is_the_maximum_of_the_likelihood():
    a, y, weight = drawn()
    found = platt(a, y, weight)
    error = (expit(found.slope * a + found.shift) - y) * weight
    assert abs(error.sum()) < 0.05 and abs((error * a).sum()) < 0.05, "the likelihood has a slope there"
    assert found.slope == pytest.approx(0.5, abs=0.1) and found.shift == pytest.approx(-1, abs=0.15)
    np.testing.assert_allclose(apply(found, a), found.slope * a + found.shift, rtol=1e-5, atol=1e-5)


def test_temperature_is_the_maximum_of_the_likelihood():
    a, y, weight = drawn(shift=0.0)
    found = _temperature(a, y, weight)
    assert found.shift == 0 and found.slope == pytest.approx(0.5, abs=0.05)
    assert abs(np.sum(weight * a * (expit(found.slope * a) - y))) < 1.0


def test_isotonic_is_that_of_scikit_learn():
    a, y, weight = drawn()
    found = _isotonic(a, y, weight)
    grid = np.concatenate([np.linspace(-12, 12, 301), a[:500]])
    least = 0.5 / len(y)
    oracle = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(a, y, weight).predict(grid)
    np.testing.assert_allclose(expit(apply(found, grid)), oracle, atol=2e-3)
    assert np.mean(np.abs(expit(apply(found, grid)) - oracle)) < 1e-5
    assert np.isfinite(apply(found, [[-1e9], [1e9]])).all() and apply(found, [[0.0], [1.0]]).shape == (2, 1)
    flat = Isotonic((0.5,), (0.2,))
    np.testing.assert_allclose(expit(apply(flat, [-3, 0.5, 3])), 0.2, rtol=1e-5)
    rising = apply(found, np.sort(a))
    assert (np.diff(rising) >= -1e-5).all()


def test_maps_come_back_from_their_configs_and_bad_ones_are_refused():
    for made in (Affine(0.3, -2.0), Isotonic((-1.0, 2.0), (0.1, 0.1))):
        assert calibration_from_config(made.get_config()) == made
    for make in (lambda: Isotonic((1.0, 1.0), (0.1, 0.2)), lambda: Isotonic((1.0, 2.0), (0.2, 0.1)), lambda: Affine(0)):
        with pytest.raises(ValueError, match="`logits` must rise|`slope` must be a finite number"):
            make()


def rows(count=1500, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count).astype("float32")
    click = (rng.random(count) < expit(2 * x - 2)).astype("float32")
    buy = click * (rng.random(count) < expit(2 * x - 1)).astype("float32")
    return {"x": x}, {"click": click, "buy": buy}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = mtl_zoo.create_model(
        "esmm", [Numeric("x")], [CLICK, BUY], tower_units=(), backbone_options={"bottom_units": (4,)}
    )
    compile_eagerly(model, keras.optimizers.Adam(0.1))
    model.fit(*rows(300, seed=5), batch_size=60, epochs=4, verbose=0)
    return model


@every_method
def test_scores_are_calibrated_and_their_order_stays(model, method):
    x, y = rows()
    before = model.predict(x, verbose=0)
    calibrated = calibrate(model, Split(x, y), "click", method)
    scores = calibrated.predict(x, verbose=0)
    old, new = before["click"][:, 0], scores["click"][:, 0]
    assert logloss(y["click"], new) < logloss(y["click"], old)
    if method != "temperature":
        assert new.mean() == pytest.approx(y["click"].mean(), rel=5e-3)
    assert auc(y["click"], new) == pytest.approx(auc(y["click"], old), abs=1e-9 if method != "isotonic" else 0.02)
    # The others, and the model itself, are as they were.
    for name in ("buy", "click_and_buy"):
        np.testing.assert_allclose(scores[name], before[name], rtol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0)["click"], before["click"], rtol=1e-6)
    assert not model.corrections and list(calibrated.corrections.calibrations) == ["click"]
    again = calibrate(calibrated, Split(x, y), "click", method)
    np.testing.assert_allclose(again.predict(x, verbose=0)["click"][:, 0], new, rtol=1e-3)
    both = calibrate(calibrated, Split(x, y), "click_and_buy", method)
    assert sorted(both.corrections.calibrations) == ["click", "click_and_buy"]


@pytest.mark.extended
@pytest.mark.tensorflow
@every_method
def test_every_way_out_is_calibrated(model, method, tmp_path):
    import tensorflow as tf

    x, y = rows(400)
    calibrated = calibrate(model, Split(x, y), "buy", method)
    scores = calibrated.predict(x, verbose=0)["buy"]
    assert not np.allclose(scores, model.predict(x, verbose=0)["buy"])
    calibrated.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.corrections == calibrated.corrections
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["buy"], scores, rtol=1e-5)
    np.testing.assert_allclose(mtl_zoo.make_scorer(calibrated)(x)["buy"], scores, rtol=1e-5)
    calibrated.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.score({"x": tf.constant(x["x"])})["buy"].numpy(), scores, rtol=1e-5)
    table = mtl_zoo.evaluate(calibrated, Split(x, y)).set_index(["task", "metric"])["value"]
    clicked = y["click"] == 1
    assert table["buy", "logloss"] == pytest.approx(logloss(y["buy"][clicked], scores[clicked, 0]), rel=1e-5)


def test_only_rows_that_count_are_fitted_on(model):
    x, y = rows(600)
    other = {**y, "buy": np.where(y["click"] == 1, y["buy"], 1.0).astype("float32")}
    one = calibrate(model, Split(x, y), "buy").corrections
    assert calibrate(model, Split(x, other), "buy").corrections == one
    weights = (np.arange(600) < 300).astype("float32")
    half = Split({"x": x["x"][:300]}, {name: label[:300] for name, label in y.items()})
    found = calibrate(model, Split(x, y, weights), "click").corrections.calibrations["click"]
    expected = calibrate(model, half, "click").corrections.calibrations["click"]
    np.testing.assert_allclose([found.slope, found.shift], [expected.slope, expected.shift], rtol=1e-3)


def test_it_comes_after_the_correction_for_sampling():
    keras.utils.set_random_seed(0)
    x, y = rows()
    labels = {"click": y["click"]}
    model = mtl_zoo.SharedBottom([Numeric("x")], CLICK, bottom_units=(4,), tower_units=())
    compile_eagerly(model, keras.optimizers.Adam(0.1))
    model.fit(x, labels, sampling=NegativeSampling("click", rate=0.2), batch_size=60, verbose=0)
    raw = expit(ops.convert_to_numpy(model(x)["click"]).astype("float64"))
    np.testing.assert_allclose(model.predict(x, verbose=0)["click"], correct_downsampling(raw, 0.2), rtol=1e-4)
    made = calibrate(model, Split(*rows(seed=1)))
    found = made.corrections.calibrations["click"]
    a = np.log(raw / (1 - raw)) + np.log(0.2)
    np.testing.assert_allclose(made.predict(x, verbose=0)["click"], expit(found.slope * a + found.shift), rtol=1e-4)
    assert made.corrections.sampling == model.corrections.sampling
    with pytest.warns(UserWarning, match="Calibrate again after it"):
        made.fit(x, labels, sampling=NegativeSampling("click", rate=0.2), verbose=0)


def test_training_rows_are_warned_of(model):
    x, y = rows(300, seed=5)
    with pytest.warns(UserWarning, match="`data` are the rows that the model was trained on"):
        calibrate(model, Split(x, y), "click")
    table = pd.DataFrame({**x, "click": y["click"]})
    transform = mtl_zoo.FeatureTransform(Numeric("x"), CLICK).fit(table)
    own = mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())
    compile_eagerly(own, keras.optimizers.Adam(0.1)).fit(table, batch_size=30, epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="`data` are the rows that the model was trained on"):
        calibrate(own, table)


def test_what_cannot_be_calibrated_is_refused(model):
    x, y = rows(200)
    split = Split(x, y)
    for make, words in (
        (lambda: calibrate(model, split, "click", "beta"), "`method` must be one of the known values"),
        (lambda: calibrate(model, split), "`task` must name an output with labels 0 and 1. Received: task=None"),
        (lambda: calibrate(model, split, "like"), r"one of \['click', 'buy', 'click_and_buy'\]"),
        (lambda: calibrate(model, Split(x, {**y, "click": 0 * y["click"]}), "click"), "rows with label 0 and with"),
        (lambda: calibrate(model, Split(x, {**y, "click": 1 - y["click"]}), "click"), "better than by chance"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    number = mtl_zoo.SharedBottom([Numeric("x")], RegressionTask("r", scale=None), bottom_units=(2,))
    with pytest.raises(ValueError, match=r"Expected: one of \[\]"):
        calibrate(number, split)
