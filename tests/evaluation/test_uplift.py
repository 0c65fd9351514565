"""Uplift: curves by hand, orders whose value is known, and a model that finds who acts because of a treatment."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mtl_zoo import FeatureTransform, Numeric, create_model
from mtl_zoo.evaluation import evaluate_uplift, uplift_curve, uplift_metrics, uplift_tasks

SCORES, TREATED, RESPONSE = [0.9, 0.9, 0.5, 0.5, 0.1, 0.0], [1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 1, 0]


def test_curves_by_hand():
    found = uplift_curve(SCORES, TREATED, RESPONSE)
    np.testing.assert_allclose(found["share"], [0, 2 / 6, 4 / 6, 5 / 6, 1])
    np.testing.assert_allclose(found["qini"], np.array([0, 1, 2 - 1, 2 - 2 * 2 / 3, 2 - 2]) / 6)
    np.testing.assert_allclose(found["uplift"], [0, 1 * 2 / 6, (1 - 0.5) * 4 / 6, (1 - 2 / 3) * 5 / 6, 0])


def test_metrics_are_areas_by_hand():
    found = uplift_metrics(SCORES, TREATED, RESPONSE)
    heights = np.array([0, 1, 1, 2 / 3, 0]) / 6
    area = sum((a + b) / 2 * w for a, b, w in zip(heights[:-1], heights[1:], [1 / 3, 1 / 3, 1 / 6, 1 / 6], strict=True))
    assert found.qini == pytest.approx(area) and found.ate == pytest.approx(0.0)


@pytest.fixture(scope="module")
def trial():
    """Rows of which those with a high x act because of the treatment, and those with a low one in spite of it."""
    rng = np.random.default_rng(0)
    x, treated = rng.normal(size=20_000), rng.integers(0, 2, 20_000)
    chance = 0.3 + 0.2 * np.tanh(x) * treated
    visit = (rng.random(20_000) < chance).astype(float)
    return pd.DataFrame({"x": x, "treated": treated, "control": 1 - treated, "visit": visit})


def test_orders_of_known_value(trial):
    t, y = trial["treated"], trial["visit"]
    best, none = uplift_metrics(trial["x"], t, y), uplift_metrics(np.random.default_rng(1).random(len(t)), t, y)
    worst = uplift_metrics(-trial["x"], t, y)
    assert best.qini > 0.015 > abs(none.qini) * 4 and worst.qini == pytest.approx(-best.qini, abs=0.005)
    assert best.ate == none.ate == pytest.approx(0.0, abs=0.02)
    constant = uplift_metrics(np.zeros(len(t)), t, y)
    assert constant.qini == pytest.approx(0.0, abs=1e-12)


@pytest.mark.tensorflow
def test_two_tasks_find_who_acts_because_of_it(trial):
    import keras

    keras.utils.set_random_seed(0)
    train, test = trial[:15_000], trial[15_000:]
    transform = FeatureTransform([Numeric("x")], uplift_tasks("visit")).fit(train)
    model = create_model("shared_bottom", transform, bottom_units=(16,), tower_units=(8,))
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(train, batch_size=512, epochs=4, verbose=0)
    found, best = evaluate_uplift(model, test, "visit"), uplift_metrics(test["x"], test["treated"], test["visit"])
    assert found.qini > 0.8 * best.qini
    assert evaluate_uplift(model, pa.Table.from_pandas(test), "visit") == found
    with pytest.raises(ValueError, match="`response` must be one of"):
        evaluate_uplift(model, test, "buy")
    with pytest.raises(ValueError, match="`table` must hold the treatment and the response. Missing: ..treated"):
        evaluate_uplift(model, test.drop(columns="treated"), "visit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 1], [0, 1]), "`treated` must hold 1 and 0"),
        (([1, 2], [1, 0], [0, 3]), "`y` must be 0 or 1"),
        (([1, np.nan], [1, 0], [0, 1]), "`score` must be finite"),
        (([1, 2, 3], [1, 0], [0, 1]), "same number of rows"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        uplift_curve(*arguments)
