"""Losses of binary tasks against their formulas in NumPy, and what they do with groups, missing labels and weights."""

import json
import types

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import compile_eagerly, gradients_of_each

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo.heads import Towers
from mtl_zoo.losses import Batch, TaskLoss
from mtl_zoo.tasks import JRC, Focal, LabelSmoothing, Listwise, LogitAdjustment, Pairwise, fit_tasks, task_from_config

ROWS = 23
RNG = np.random.default_rng(4)
Y = (RNG.random(ROWS) < 0.4).astype("float32")
A = RNG.normal(size=ROWS).astype("float32") * 2
# Ragged groups: of 1 to 7 rows, one of positives alone, in no order.
GROUPS = RNG.permutation(np.repeat([3, 5, 8, 13, 21, 34], [1, 2, 3, 4, 6, 7]))
OPTIONS = [
    Focal(),
    Focal(0.0, 0.2),
    Focal(1.5, 0.7),
    LabelSmoothing(0.2),
    LogitAdjustment(0.7),
    Pairwise("g"),
    Listwise("g"),
    JRC("g", alpha=0.3),
    JRC(alpha=1.0),
]
each_loss = pytest.mark.parametrize("loss", OPTIONS, ids=repr)


def softplus(x):
    return np.logaddexp(0, x)


def bce(y, a):
    return softplus(a) - y * a


def oracle(loss, y, a, groups, rate=0.3):
    """Row by row in plain loops."""
    y, a = np.asarray(y, "float64"), np.asarray(a, "float64")
    p = 1 / (1 + np.exp(-a))
    if isinstance(loss, Focal):
        own = np.where(y == 1, p, 1 - p)
        share = 1.0 if loss.alpha is None else np.where(y == 1, loss.alpha, 1 - loss.alpha)
        return -share * (1 - own) ** loss.gamma * np.log(own)
    if isinstance(loss, LabelSmoothing):
        smooth = y * (1 - loss.share) + loss.share / 2
        return -smooth * np.log(p) - (1 - smooth) * np.log(1 - p)
    if isinstance(loss, LogitAdjustment):
        return bce(y, a + loss.tau * np.log(rate / (1 - rate)))
    groups = np.zeros(len(y)) if loss.group is None else groups
    found = np.zeros(len(y))
    for i in range(len(y)):
        mates = np.flatnonzero(groups == groups[i])
        negatives = mates[y[mates] == 0]
        if isinstance(loss, Pairwise) and y[i] == 1 and len(negatives):
            found[i] = np.mean([-np.log(1 / (1 + np.exp(a[j] - a[i]))) for j in negatives])
        if isinstance(loss, Listwise) and y[i] == 1:
            found[i] = -np.log(np.exp(a[i]) / np.exp(a[mates]).sum()) / y[mates].sum()
        if isinstance(loss, JRC):
            of_label = np.stack([-a, a], axis=1)[:, int(y[i])] / 2
            ranking = -np.log(np.exp(of_label[i]) / np.exp(of_label[mates]).sum())
            found[i] = loss.alpha * bce(y, a)[i] + (1 - loss.alpha) * ranking
    return found


def rows_of(loss, labels, a, inputs=None, weights=None):
    task = BinaryTask("y", loss=loss, rate=0.3)
    losses = {"y": TaskLoss("y", task, task.loss_name)}
    logits = {"y": ops.convert_to_tensor(np.asarray(a, "float32")[:, None])}
    return Towers().row_losses([task], Batch(inputs or {}, labels, weights), logits, losses)


def values_of(loss, y, a, groups):
    values, _ = rows_of(loss, {"y": y, "g": groups}, a).rows["y"]
    return ops.convert_to_numpy(values)


@each_loss
def test_values_are_those_of_the_formula(loss):
    np.testing.assert_allclose(values_of(loss, Y, A, GROUPS), oracle(loss, Y, A, GROUPS), rtol=2e-5, atol=1e-6)


@each_loss
def test_gradients_are_those_of_finite_differences(loss):
    logits = keras.Variable(A[:, None])
    task = BinaryTask("y", loss=loss, rate=0.3)
    losses = {"y": TaskLoss("y", task, task.loss_name)}

    def mean(_):
        batch = Batch({}, {"y": Y, "g": GROUPS})
        return Towers().row_losses([task], batch, {"y": ops.convert_to_tensor(logits)}, losses).means()

    found = gradients_of_each(types.SimpleNamespace(trainable_variables=[logits]), mean)["y"]
    (gradient,) = found.values()
    step = 1e-5
    moved = np.asarray(A, "float64") + step * np.concatenate([np.eye(ROWS), -np.eye(ROWS)])
    up, down = np.split(np.array([oracle(loss, Y, a, GROUPS).mean() for a in moved]), 2)
    np.testing.assert_allclose(gradient[:, 0], (up - down) / (2 * step), rtol=1e-3, atol=1e-6)


@each_loss
def test_the_order_of_rows_does_not_matter_and_missing_labels_are_as_if_not_there(loss):
    order = np.random.default_rng(0).permutation(ROWS)
    plain = values_of(loss, Y, A, GROUPS)
    np.testing.assert_allclose(values_of(loss, Y[order], A[order], GROUPS[order]), plain[order], rtol=1e-5, atol=1e-6)
    hidden = np.arange(ROWS) % 3 == 0
    values, weights = rows_of(loss, {"y": np.where(hidden, np.nan, Y), "g": GROUPS}, A).rows["y"]
    values, weights = ops.convert_to_numpy(values), ops.convert_to_numpy(weights)
    assert not weights[hidden].any()
    expected = oracle(loss, Y[~hidden], A[~hidden], GROUPS[~hidden])
    np.testing.assert_allclose(values[~hidden], expected, rtol=2e-5, atol=1e-6)


@each_loss
def test_weights_of_rows_weigh_and_extreme_logits_are_finite(loss):
    weight = RNG.uniform(0.5, 2, ROWS).astype("float32")
    mean = float(rows_of(loss, {"y": Y, "g": GROUPS}, A, weights=weight).means()["y"])
    assert mean == pytest.approx(np.average(oracle(loss, Y, A, GROUPS), weights=weight), rel=1e-4)
    assert np.isfinite(values_of(loss, Y, A * 500, GROUPS)).all()


def test_special_cases_are_the_cross_entropy():
    for loss in (Focal(0.0), LabelSmoothing(0.0), LogitAdjustment(0.0), JRC("g", alpha=1.0)):
        np.testing.assert_allclose(values_of(loss, Y, A, GROUPS), bce(Y, A), rtol=1e-4, atol=1e-6)
    alone = np.arange(ROWS)
    for loss in (Pairwise("g"), Listwise("g")):
        np.testing.assert_allclose(values_of(loss, Y, A, alone), 0, atol=1e-6)
    np.testing.assert_allclose(values_of(JRC("g", alpha=0.25), Y, A, alone), 0.25 * bce(Y, A), rtol=1e-4, atol=1e-6)


def test_groups_come_from_inputs_whose_unknown_ids_are_in_no_group():
    ids = GROUPS.copy()
    ids[:9] = RNG.integers(0, 2, 9)
    alone = np.where(ids < 2, 100 + np.arange(ROWS), ids)
    for loss in (Pairwise("g"), Listwise("g"), JRC("g")):
        values, _ = rows_of(loss, {"y": Y}, A, inputs={"g": ids}).rows["y"]
        expected = oracle(loss, Y, A, alone)
        np.testing.assert_allclose(ops.convert_to_numpy(values), expected, rtol=2e-5, atol=1e-6)


@each_loss
def test_the_config_brings_the_options_back(loss):
    task = BinaryTask("y", loss=loss, rate=0.25)
    again = task_from_config(json.loads(json.dumps(task.get_config())))
    assert again == task and again.loss == loss and again.rate == 0.25
    assert again.loss_name in BinaryTask.losses and "rate" not in task.arrays_config()


def test_bad_options_are_refused():
    for make, words in (
        (lambda: Focal(-1), "`gamma` must be a finite number and >= 0"),
        (lambda: Focal(alpha=1), "`alpha` must be a finite number and > 0"),
        (lambda: LabelSmoothing(1), "`share` must be a finite number and >= 0"),
        (lambda: LogitAdjustment(-0.5), "`tau` must be a finite number and >= 0"),
        (lambda: JRC(alpha=1.5), "`alpha` must be a finite number and >= 0"),
        (lambda: Pairwise(""), "`group` must name an input"),
        (lambda: BinaryTask("y", loss="nothing"), "`loss` must be one of the known values"),
        (lambda: BinaryTask("y", rate=0.0), "`rate` must be a finite number and > 0"),
        (lambda: values_of(Pairwise("session"), Y, A, GROUPS), r"Received: group='session'\. Expected: among \['y'"),
        (lambda: rows_of(Listwise("g"), {"y": Y, "g": np.zeros((ROWS, 2))}, A), "must name one id a row"),
        (lambda: TaskLoss("y", BinaryTask("y"), "logit_adjustment"), "`loss` must be given to the task"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def model_of(task, **arguments):
    return mtl_zoo.SharedBottom([Numeric("x")], task, bottom_units=(4,), tower_units=(), **arguments)


def test_the_rate_is_learned_from_training_labels_and_saved(tmp_path):
    keras.utils.set_random_seed(0)
    x = RNG.normal(size=400).astype("float32")
    y = (RNG.random(400) < 0.1).astype("float32")
    y[:100] = np.nan
    model = compile_eagerly(model_of(BinaryTask("y", loss="logit_adjustment")), "adam")
    model.fit({"x": x}, y, epochs=1, batch_size=200, verbose=0)
    assert model.tasks[0].rate == pytest.approx(np.nanmean(y))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.tasks[0].rate == model.tasks[0].rate and loaded.tasks[0].loss == "logit_adjustment"

    (alike,) = fit_tasks([BinaryTask("y", loss=LogitAdjustment())], {"y": np.ones(4)})
    assert alike.rate == 1 - 0.5 / 4
    table = {"x": x, "y": y}
    transform = FeatureTransform(Numeric("x"), BinaryTask("y", loss=LogitAdjustment())).fit(table)
    assert model_of_transform(transform).tasks[0].rate == pytest.approx(np.nanmean(y))


def model_of_transform(transform):
    return mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())


def test_a_rate_that_is_not_known_or_another_outputs_is_refused():
    model = compile_eagerly(model_of(BinaryTask("y", loss="logit_adjustment")))
    with pytest.raises(ValueError, match="`rate` of task 'y' must be known"):
        model.task_losses({"y": Y}, model({"x": A}))
    tasks = [BinaryTask("click"), BinaryTask("buy", sample_space="click", loss="logit_adjustment", rate=0.1)]
    funnel = compile_eagerly(mtl_zoo.ESMM([Numeric("x")], tasks, backbone_options={"bottom_units": (4,)}))
    with pytest.raises(ValueError, match="whose loss is also computed on 'click_and_buy'"):
        funnel.task_losses({"click": Y, "buy": Y}, funnel({"x": A}))


def test_scores_of_a_logit_adjusted_model_are_those_of_balanced_labels():
    """On a constant input the best score is 1/2 whatever the rate: there the loss has no slope."""
    y = (np.arange(1000) % 20 == 0).astype("float32")
    for loss, logit in ((LogitAdjustment(), 0.0), (LabelSmoothing(0.0), np.log(0.05 / 0.95))):
        task = BinaryTask("y", loss=loss, rate=0.05)
        losses = {"y": TaskLoss("y", task, task.loss_name)}
        logits = keras.Variable(np.full((1000, 1), logit, "float32"))

        def mean(_, task=task, losses=losses, logits=logits):
            given = {"y": ops.convert_to_tensor(logits)}
            return Towers().row_losses([task], Batch({}, {"y": y}), given, losses).means()

        (gradient,) = gradients_of_each(types.SimpleNamespace(trainable_variables=[logits]), mean)["y"].values()
        assert abs(gradient.sum()) < 1e-6 < abs(gradient).max()


def test_a_ranking_loss_trains_from_a_table():
    loss = Listwise("user")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    table = {"user": rng.integers(0, 20, 600), "x": rng.normal(size=600)}
    # Users differ more in their level than rows of one user do.
    level = table["user"] - 10.0
    table["y"] = (rng.random(600) < 1 / (1 + np.exp(-(level + 2 * table["x"])))).astype("float32")
    transform = FeatureTransform([Categorical("user", dim=2), Numeric("x")], BinaryTask("y", loss=loss)).fit(table)
    model = model_of_transform(transform)
    compile_eagerly(model, keras.optimizers.Adam(0.05), metrics=None)
    table = pd.DataFrame(table)
    losses = model.fit(table, batch_size=200, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    found = mtl_zoo.evaluate(model, table, group="user").set_index("metric")["value"]
    assert found["gauc"] > 0.8
