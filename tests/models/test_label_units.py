"""A task's unit does not decide how much it weighs: labels of regressions are standardised inside."""

import warnings

import keras
import numpy as np
import pandas as pd
import pytest

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, RegressionTask
from mtl_zoo.evaluation import auc
from mtl_zoo.tasks import fit_tasks, task_from_config


def visits(users=60, items=20, seed=0):
    """A click and a spend by user, item and a number; the spend is in a unit a hundred times that of the click."""
    rng = np.random.default_rng(seed)
    of_user, of_item = rng.normal(size=users), rng.normal(size=items)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(users), np.arange(items), indexing="ij"))
    x = rng.normal(size=len(user))
    p = 1 / (1 + np.exp(-(1.5 * of_user[user] + of_item[item] + x)))
    return pd.DataFrame(
        {
            "user": user.astype(str),
            "item": item.astype(str),
            "x": x,
            "click": (rng.random(len(user)) < p).astype(float),
            "spend": 100 + 30 * rng.normal(size=len(user)) + 20 * of_user[user],
        }
    )


def trained(table, factor=1.0, epochs=1, **options):
    table = table.assign(spend=table["spend"] * factor)
    features = [Categorical("user", dim=8), Categorical("item", dim=8), Numeric("x")]
    transform = FeatureTransform(features, [BinaryTask("click"), RegressionTask("spend", **options)]).fit(table)
    keras.utils.set_random_seed(3)
    model = mtl_zoo.SharedBottom(transform, bottom_units=(16,), tower_units=())
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(table, epochs=epochs, batch_size=200, shuffle=False, verbose=0).history
    return model, table, history


# fault 16
@pytest.mark.extended
def test_the_unit_of_a_label_does_not_matter():
    table = visits()
    (large, rows, logs), (small, small_rows, small_logs) = trained(table, epochs=8), trained(table, 0.01, epochs=8)
    a, b = large.predict(rows, verbose=0), small.predict(small_rows, verbose=0)
    np.testing.assert_allclose(a["click"], b["click"], atol=2e-3)
    np.testing.assert_allclose(a["spend"], 100 * b["spend"], rtol=2e-3)
    # The logs have the loss in standardised units, metrics in the label's own.
    np.testing.assert_allclose(logs["spend_loss"], small_logs["spend_loss"], rtol=1e-3)
    assert 0.2 < logs["spend_loss"][-1] < 1.2 and 5 < logs["spend_rmse"][-1] < 45
    np.testing.assert_allclose(logs["spend_rmse"], 100 * np.array(small_logs["spend_rmse"]), rtol=1e-3)
    raw, raw_rows, _ = trained(table, epochs=8, scale=None)
    found = [auc(r["click"], m.predict(r, verbose=0)["click"]) for m, r in ((large, rows), (raw, raw_rows))]
    assert found[0] > found[1] + 0.02


# fault 16
@pytest.mark.tensorflow
def test_scores_everywhere_are_in_the_labels_own_unit(tmp_path):
    import tensorflow as tf

    model, table, _ = trained(visits(20, 10))
    expected = model.predict(table, verbose=0)["spend"]
    assert abs(expected.mean() - 100) < 20
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.tasks[1].moments == model.tasks[1].moments == model.transform.tasks[1].moments
    np.testing.assert_allclose(loaded.predict(table, verbose=0)["spend"], expected, rtol=1e-6)
    mtl_zoo.export_serving(model, tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    raw = {name: tf.constant(array) for name, array in model.transform.raw_arrays(table).items()}
    np.testing.assert_allclose(served.score(raw)["spend"].numpy(), expected, rtol=1e-5)
    found = mtl_zoo.evaluate(model, table)
    rmse = np.sqrt(np.mean((expected[:, 0] - table["spend"]) ** 2))
    assert found[(found.task == "spend") & (found.metric == "rmse")]["value"].item() == pytest.approx(rmse, rel=1e-5)
    logs = model.evaluate(table, verbose=0, return_dict=True)
    assert logs["spend_rmse"] == pytest.approx(rmse, rel=1e-4)
    assert logs["spend_loss"] == pytest.approx((rmse / table["spend"].std(ddof=0)) ** 2, rel=1e-4)


def arrays(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows).astype("float32")
    return {"x": x}, {"y": (1e4 + 1e3 * x + rng.normal(size=rows)).astype("float32")}


def of_arrays(**options):
    model = mtl_zoo.SharedBottom([Numeric("x")], RegressionTask("y", **options), bottom_units=(4,), tower_units=())
    model.compile("adam")
    return model


# fault 16
def test_arrays_without_a_transform_give_their_moments_to_the_first_fit():
    x, y = arrays()
    model = of_arrays()
    before = model.predict(x, verbose=0)["y"]  # traced in another unit
    model.fit(x, y, verbose=0)
    mean, deviation = model.tasks[0].moments
    assert (mean, deviation) == pytest.approx((y["y"].mean(), y["y"].std()), rel=1e-5)
    assert abs(before).max() < 100 < abs(model.predict(x, verbose=0)["y"]).min()
    model.fit(x, {"y": y["y"] * 3}, verbose=0)  # a later day's labels have another mean
    assert model.tasks[0].moments == (mean, deviation)
    again = type(model).from_config(model.get_config())
    assert again.tasks[0].moments == (mean, deviation)


# fault 16
@pytest.mark.tensorflow
def test_moments_that_nothing_gives_are_warned_of():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(16)
    with pytest.warns(UserWarning, match=r"labels of tasks \['y'\] are used in the unit that they have"):
        of_arrays().fit(data, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        of_arrays(scale=(1e4, 1e3)).fit(data, verbose=0)


def test_moments_are_those_of_observed_rows_in_the_sample_space():
    task = RegressionTask("y", sample_space="click")
    y = {"y": np.array([1.0, 3.0, 50.0, np.nan]), "click": np.array([1, 1, 0, 1])}
    (fitted,) = fit_tasks([task], y)
    assert fitted.moments == (2.0, 1.0) and not task.is_fitted and fitted.is_fitted
    assert fitted == task and task_from_config(fitted.get_config()).moments == (2.0, 1.0)
    assert fit_tasks([task], {**y, "click": np.zeros(4)})[0].moments is None
    assert fit_tasks([RegressionTask("y")], {"y": np.full(5, 0.1)})[0].moments == (pytest.approx(0.1), 1.0)


@pytest.mark.parametrize(
    "scale, labels", [(None, [7.0, 9.0]), (2, [3.5, 4.5]), ((5, 2.0), [1.0, 2.0]), ("standardize", [-1.0, 1.0])]
)
def test_scales(scale, labels):
    (task,) = fit_tasks([RegressionTask("y", scale=scale)], {"y": [7.0, 9.0]})
    np.testing.assert_allclose(task.loss_labels(np.array([7.0, 9.0])), labels)
    np.testing.assert_allclose(task.scores(np.array(labels)), [7.0, 9.0])
    assert task_from_config(task.get_config()) == task


@pytest.mark.parametrize("scale", ["minmax", 0, -1.0, (1, 0), (1, 2, 3)])
def test_scales_that_are_refused(scale):
    with pytest.raises(ValueError, match="`scale` must be"):
        RegressionTask("y", scale=scale)


# fault 16
def test_a_heavy_tail_is_warned_of():
    rng = np.random.default_rng(0)
    spend = np.where(rng.random(5000) < 0.005, rng.exponential(100, 5000), 0)
    with pytest.warns(UserWarning, match="`spend`, the label of task 'spend', has a heavy tail: 1 % of its rows make"):
        fit_tasks([RegressionTask("spend")], {"spend": spend})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_tasks([RegressionTask("spend")], {"spend": rng.exponential(100, 5000)})


def test_a_task_of_0_1_0_predicts_the_label_itself():
    saved = {"kind": "regression", "name": "y", "label": None, "loss": "auto", "loss_weight": 1.0, "metrics": ["auto"]}
    task = task_from_config(saved)
    assert task.scale is None and task.is_fitted
    assert fit_tasks([task], {"y": [7.0, 9.0]})[0].unit == (0.0, 1.0)
