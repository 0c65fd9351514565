"""What tasks lose without features: a score that is known, what is ignored, groups, intervals."""

import numpy as np
import pandas as pd
import pytest
from keras import ops
from sklearn.metrics import roc_auc_score

from mtl_zoo import MLP, BinaryTask, Categorical, FeatureTransform, Numeric, RegressionTask, create_model
from mtl_zoo.datasets import Split
from mtl_zoo.explanations import permutation_importance

ROWS = 400
TASKS = (BinaryTask("click"), RegressionTask("rating", scale=None))


def split(seed=0):
    """Clicks and ratings that `strong` says much of, `weak` little and `nothing` nothing."""
    rng = np.random.default_rng(seed)
    x = {name: rng.normal(size=ROWS).astype("float32") for name in ("strong", "weak", "nothing")}
    logit = 2 * x["strong"] + 0.7 * x["weak"]
    click = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype("float32")
    return Split(x, {"click": click, "rating": logit.astype("float32")})


def linear(tasks=TASKS):
    """A model whose logits are `2 strong + 0.7 weak`."""
    features = [Numeric(name) for name in ("strong", "weak", "nothing")]
    model = create_model("shared_bottom", features, tasks, bottom_units=MLP((1,), activation="linear"), tower_units=())
    model.get_layer("bottom").dense[0].kernel.assign([[2.0], [0.7], [0.0]])
    for task in tasks:
        model.get_layer(f"{task.name}_head").kernel.assign(np.ones((1, task.units)))
    return model


def test_importance_is_what_the_metric_loses():
    data, model = split(), linear()
    found = permutation_importance(model, data, repeats=4, resamples=30).table
    assert list(found["task"]) == ["click"] * 3 + ["rating"] * 3
    assert list(found["feature"]) == ["strong", "weak", "nothing"] * 2
    click, rating = found.iloc[:3], found.iloc[3:]
    y = data.labels["click"]
    np.testing.assert_allclose(click["value"], roc_auc_score(y, 2 * data.inputs["strong"] + 0.7 * data.inputs["weak"]))
    assert (rating["metric"] == "nrmse").all() and rating["value"].iloc[0] < 1e-6
    # Of a shuffled number x of weight w, the error is w (x - x'): of variance 2 w^2.
    expected = np.array([2 * 2**0.5, 0.7 * 2**0.5, 0]) / data.labels["rating"].std()
    np.testing.assert_allclose(rating["importance"], expected, rtol=0.15, atol=1e-6)
    np.testing.assert_allclose(found["without"], found["value"] - [1, 1, 1, -1, -1, -1] * found["importance"])
    assert (found["low"] <= found["importance"]).all() and (found["importance"] <= found["high"]).all()
    assert (click["low"].iloc[:2] > 0).all() and found[["low", "high"]].iloc[[2, 5]].abs().max(axis=None) < 1e-6
    assert (found["observed"] == ROWS).all()


def test_groups_tasks_metrics_and_seeds():
    data, model = split(), linear()
    groups = {"both": ("strong", "weak"), "one": ["weak"]}
    found = permutation_importance(model, data, "click", groups=groups, metric="logloss", resamples=0)
    assert list(found.table["feature"]) == ["both", "one"] and (found.table["metric"] == "logloss").all()
    assert (found.table["importance"] > 0).all() and found.table["low"].isna().all()
    again = permutation_importance(model, data, "click", groups=groups, metric="logloss", resamples=0)
    pd.testing.assert_frame_equal(found.table, again.table)
    other = permutation_importance(model, data, "click", groups=groups, metric="logloss", resamples=0, seed=1)
    assert (other.table["importance"] != found.table["importance"]).all()


def test_left_out_features_are_missing():
    data, model = split(), linear()
    found = permutation_importance(model, data, "rating", method="missing", resamples=0, metric="mae")
    expected = {"strong": 2 * np.abs(data.inputs["strong"]).mean(), "weak": 0.7 * np.abs(data.inputs["weak"]).mean()}
    values = found.table.set_index("feature")["importance"]
    np.testing.assert_allclose([values["strong"], values["weak"]], list(expected.values()), rtol=1e-4)
    assert found.repeats == 1 and values["nothing"] < 1e-6


def test_rows_count_as_in_evaluate():
    data, model = split(), linear()
    data.labels["click"][:100] = np.nan
    weights = np.ones(ROWS, "float32")
    weights[100:200] = 0
    data.weights = weights
    found = permutation_importance(model, data, "click", groups={"strong": ["strong"]}, resamples=0).table.iloc[0]
    score = 2 * data.inputs["strong"] + 0.7 * data.inputs["weak"]
    assert found["observed"] == 300
    np.testing.assert_allclose(found["value"], roc_auc_score(data.labels["click"][200:], score[200:]))


@pytest.mark.tensorflow
def test_a_table_and_its_picture(tmp_path):
    table = pd.DataFrame({"city": ["Rome", "Oslo", "Bonn", None] * 10, "click": [0, 1, 0, 1] * 10})
    transform = FeatureTransform([Categorical("city", dim=2)], [BinaryTask("click")]).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=())
    kernel = model.get_layer("bottom").dense[0].kernel
    kernel.assign(100 * ops.convert_to_numpy(kernel))
    found = permutation_importance(model, table, resamples=20)
    assert found.table["importance"].notna().all() and "city" in str(found)
    assert found.plot(tmp_path / "bars.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": "like"}, "`task`"),
        ({"method": "shuffle"}, "`method`"),
        ({"metric": "rmse"}, "`metric`"),
        ({"metric": "pcoc"}, "`metric`"),
        ({"groups": {"a": ["price"]}}, "`groups` must hold lists of features"),
        ({"groups": {"a": "weak"}}, "`groups` must hold lists of features"),
        ({"groups": ["weak"]}, "`groups` must be lists of features by a name"),
        ({"groups": {}}, "`groups` must name at least one"),
        ({"tasks": []}, "`tasks` must name at least one"),
        ({"metric": {"clik": "auc"}}, "`metric`"),
        ({"repeats": 0}, "`repeats`"),
        ({"split": Split({"weak": np.zeros(0)}, {})}, "`split` must have at least one row"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        permutation_importance(linear(TASKS[:1]), **{"split": split(), **arguments})
