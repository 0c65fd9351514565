"""What every kind of task with a label must do, walked over the registry. Those without one: `test_unlabelled.py`."""

import json
import types

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import gradients_of_each

import mtl_zoo
from mtl_zoo import Categorical, FeatureTransform, Numeric
from mtl_zoo.heads import Towers
from mtl_zoo.losses import Batch, TaskLoss
from mtl_zoo.tasks import TASKS, fit_tasks, task_from_config

# What a kind cannot be made without.
ARGUMENTS = {"multiclass": {"classes": 3}}
ROWS = 200
every_kind = pytest.mark.parametrize("kind", [kind for kind in TASKS.names() if TASKS[kind].is_labelled])


def make(kind, **arguments):
    return TASKS[kind]("y", **{**ARGUMENTS.get(kind, {}), **arguments})


def legal_labels(task, rows=ROWS, seed=0):
    """Labels of the kind, among whole numbers and others, all of which differ from those of other rows somewhere."""
    rng = np.random.default_rng(seed)
    pool = np.concatenate([np.arange(10), rng.normal(size=10)]).round(3)
    legal = pool[np.asarray(task.is_label(pool))]
    assert len(legal) > 1
    return np.append(legal[:2], rng.choice(legal, rows - 2))


def logits_of(task, rows=ROWS, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, task.logit_units)).astype("float32")


@every_kind
def test_scores_come_from_logits_row_by_row(kind):
    task = make(kind)
    logits = logits_of(task)
    scores = ops.convert_to_numpy(task.scores(ops.convert_to_tensor(logits)))
    assert scores.shape == (ROWS, task.units) and np.isfinite(scores).all()
    one = ops.convert_to_numpy(task.scores(ops.convert_to_tensor(logits[3:4])))
    np.testing.assert_allclose(one, scores[3:4], rtol=1e-5)
    if task.logit_units == 1:
        assert (np.diff(scores[np.argsort(logits[:, 0]), 0]) >= 0).all(), "a higher logit has no higher score"


@every_kind
def test_losses_are_finite_and_leave_unobserved_rows_alone(kind):
    y = legal_labels(make(kind)).astype("float32")
    for name in make(kind).losses:
        (task,) = fit_tasks([make(kind, loss=name, sample_space="seen")], {"y": y, "seen": np.ones(ROWS)})
        labels = {"y": y.copy(), "seen": np.ones(ROWS, "float32")}
        labels["y"][:20], labels["seen"][20:40] = np.nan, 0.0
        given = logits_of(task)
        given[40:60] *= 50
        logits = keras.Variable(given)
        rows = []

        def of(_, task=task, labels=labels, logits=logits, rows=rows, name=name):
            losses = {"y": TaskLoss("y", task, name)}
            rows.append(Towers().row_losses([task], Batch({}, labels), {"y": ops.convert_to_tensor(logits)}, losses))
            return rows[-1].means()

        gradient = gradients_of_each(types.SimpleNamespace(trainable_variables=[logits]), of)["y"]
        (gradient,) = gradient.values()
        assert np.isfinite(gradient).all() and not gradient[:40].any() and gradient[40:].any()
        values, weights = (ops.convert_to_numpy(part) for part in of_rows(task, labels, given, name))
        assert values.shape == weights.shape == (ROWS,) and np.isfinite(values).all()
        chosen = task.in_loss(y)
        assert not weights[:40].any()
        np.testing.assert_array_equal(weights[40:], 1.0 if chosen is None else chosen[40:])


def of_rows(task, labels, logits, name):
    losses = {"y": TaskLoss("y", task, name)}
    return Towers().row_losses([task], Batch({}, labels), {"y": ops.convert_to_tensor(logits)}, losses).rows["y"]


@every_kind
def test_a_label_that_is_none_makes_the_loss_not_finite(kind):
    task = make(kind)
    y = legal_labels(task).astype("float32")
    y[0] = np.inf
    assert not np.asarray(task.is_label(y))[0]
    values, _ = of_rows(task, {"y": y}, logits_of(task), task.loss_name)
    values = ops.convert_to_numpy(values)
    assert np.isnan(values[0]) and np.isfinite(values[1:]).all()


@every_kind
def test_labels_of_a_table_are_read_and_refused(kind):
    task = make(kind)
    y = legal_labels(task)
    y[5] = np.nan
    table = pd.DataFrame({"x": np.arange(ROWS, dtype=float), "y": y})
    transform = FeatureTransform(Numeric("x"), task).fit(table)
    np.testing.assert_allclose(transform.encode_labels(table)["y"], y.astype("float32"))
    assert not task.reads_text
    wrong = table.assign(y=np.where(np.arange(ROWS) == 7, np.inf, y))
    with pytest.raises(ValueError, match=r"`y` must.*\[inf\]"):
        FeatureTransform(Numeric("x"), task).fit(wrong)
    with pytest.raises(ValueError, match="all missing"):
        FeatureTransform(Numeric("x"), task).fit(table.assign(y=np.nan))


@every_kind
def test_exact_metrics_equal_those_of_the_logs(kind):
    task = make(kind)
    rng = np.random.default_rng(2)
    y, logits, weight = legal_labels(task, 2000), logits_of(task, 2000), rng.uniform(0.5, 2, 2000)
    scores = ops.convert_to_numpy(task.scores(ops.convert_to_tensor(logits)))
    exact, streaming = task.exact_metrics(), task.streaming_metrics()
    assert task.selection_metric in exact and exact[task.selection_metric].direction
    assert set(task.default_metrics) <= set(streaming)
    both = set(exact) & set(streaming)
    assert both, "no metric of the logs has an exact form"
    for name in both:
        metric = streaming[name](name=f"y_{name}")
        for rows in (slice(0, 700), slice(700, 2000)):
            metric.update_state(y[rows, None].astype("float32"), scores[rows], sample_weight=weight[rows])
        found = exact[name].function(y, scores if task.units > 1 else scores[:, 0], weight)
        assert float(metric.result()) == pytest.approx(found, abs=1e-3, rel=1e-3)


@every_kind
def test_a_task_is_made_again_from_its_config(kind):
    (task,) = fit_tasks([make(kind, label="z", loss_weight=2.0)], {"y": legal_labels(make(kind))})
    again = task_from_config(json.loads(json.dumps(task.get_config())))
    assert again == task and again.get_config() == task.get_config() and again.is_fitted
    assert set(task.arrays_config()) <= set(task.get_config())


@every_kind
def test_a_model_learns_the_task_and_keeps_it(kind, tmp_path):
    keras.utils.set_random_seed(0)
    task = make(kind)
    y = legal_labels(task)
    ids = np.random.default_rng(3).integers(2, 11, ROWS).astype("int32")
    x = {"x": ((y - y.mean()) / y.std()).astype("float32"), "user": ids, "item": ids}
    sides = [Categorical(side, size=9, dim=4, side=side) for side in ("user", "item")]
    model = mtl_zoo.SharedBottom([Numeric("x"), *sides], task, bottom_units=(8,), tower_units=())
    model.compile(keras.optimizers.Adam(0.05))
    logs = model.fit(x, y, batch_size=50, epochs=8, verbose=0).history
    assert logs["y_loss"][-1] < logs["y_loss"][0] and np.isfinite(logs["y_loss"]).all()
    scores = model.predict(x, verbose=0)["y"]
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0)["y"], scores, rtol=1e-6
    )
    split = mtl_zoo.datasets.Split(x, {"y": y.astype("float32")})
    table = mtl_zoo.evaluate(model, split).set_index("metric")["value"]
    assert list(table.index)[: len(task.exact_metrics())] == list(task.exact_metrics())
    assert np.isfinite(table[task.selection_metric]) and task.label_frequency(y) > 0
