"""What `fit`, `evaluate` and `compile` take beside arrays, and what they look at before training."""

import keras
import numpy as np
import pandas as pd
import pytest
from toys import CLICK, build, compile_eagerly, inputs, labels

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MulticlassTask, Numeric, RegressionTask
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.heads import Output, Towers
from mtl_zoo.tasks import task_from_config

TF = pytest.mark.tensorflow
pytestmark = pytest.mark.usefixtures("untraced")
WEIGHED = RegressionTask("y", sample_weight="w")


def small(tasks=(CLICK,), **options):
    keras.utils.set_random_seed(1)
    model = mtl_zoo.SharedBottom([Numeric("age")], list(tasks), bottom_units=(4,), tower_units=())
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def few(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows).astype("float32")
    return {"age": x}, {"click": (rng.random(rows) < 0.3).astype("float32")}


# fault 11
def test_class_weights_are_weights_of_rows():
    x, y = few()
    weighed, by_row = small(), small()
    weighed.fit(x, y["click"], class_weight={0: 1.0, 1: 3.0}, shuffle=False, verbose=0)
    by_row.fit(x, y, sample_weight=1.0 + 2.0 * y["click"], shuffle=False, verbose=0)
    assert_same_weights(weighed, by_row)
    by_task = small()
    by_task.fit(x, y, class_weight={"click": {1: 3}}, shuffle=False, verbose=0)
    assert_same_weights(by_task, by_row)


def assert_same_weights(a, b):
    for v, w in zip(a.weights, b.weights, strict=True):
        np.testing.assert_allclose(v.numpy(), w.numpy(), atol=1e-7)


# fault 11
@pytest.mark.parametrize(
    "given, message",
    [
        ({"klick": {0: 1}}, "`class_weight` must hold a dict of weights by class for each task"),
        ({"click": {2: 1}}, r"`class_weight\['click'\]` must be one of"),
        ({"click": {1: -1}}, r"`class_weight\['click'\]\[1\]` must be a finite number and >= 0"),
        ({"time": {0: 1}}, "`class_weight` must name tasks that have classes. Received: 'time'"),
        (3, "`class_weight` must be a dict"),
    ],
)
def test_class_weights_that_are_refused(given, message):
    x, y = few()
    with pytest.raises(ValueError, match=message):
        small([CLICK, RegressionTask("time")]).fit(x, {**y, "time": y["click"]}, class_weight=given, verbose=0)


# fault 11
def test_positive_weight_multiplies_the_losses_of_ones():
    x, y = few()
    plain, weighed = small(), small([BinaryTask("click", positive_weight=4)])
    logits = plain(x)
    ones = y["click"] == 1
    rows = [
        float(plain.task_losses({"click": np.where(at, y["click"], np.nan)}, logits)["click"]) for at in (ones, ~ones)
    ]
    expected = (4 * rows[0] * ones.sum() + rows[1] * (~ones).sum()) / len(ones)
    assert float(weighed.task_losses(y, logits)["click"]) == pytest.approx(expected, rel=1e-5)
    assert task_from_config(BinaryTask("click", positive_weight=4).get_config()).positive_weight == 4
    with pytest.raises(ValueError, match="`positive_weight` must be"):
        BinaryTask("click", positive_weight=0)


# fault 12
@pytest.mark.parametrize(
    "monitor, mode",
    [
        ("val_click_auc", "max"),
        ("click_loss", "min"),
        ("val_loss", "min"),
        ("val_time_rmse", "min"),
        ("val_click_accuracy", "max"),
        ("val_score", "max"),
        ("val_click_brier", "min"),
    ],
)
def test_the_direction_of_our_metrics_is_known(monitor, mode):
    metrics = {"click": ["auc", "accuracy", keras.metrics.MeanSquaredError(name="brier")], "time": ["rmse"]}
    model = small([CLICK, RegressionTask("time")], metrics=metrics)
    x, y = few()
    y = {**y, "time": y["click"]}
    callbacks = [
        keras.callbacks.EarlyStopping(monitor=monitor),
        keras.callbacks.ReduceLROnPlateau(monitor=monitor),
        keras.callbacks.ModelCheckpoint("best.keras", monitor=monitor, save_best_only=True),
    ]
    mtl_zoo.models._data.with_own_callbacks(model, callbacks, _NoRun)
    assert [callback.mode for callback in callbacks] == [mode] * 3
    if monitor == "val_click_auc":
        model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=callbacks[:2])


# Beside the metrics of training, those that ExactValidation enters: a score is better when higher.
WHICH_END = {
    "auc": "max", "accuracy": "max", "precision": "max", "recall": "max", "rmse": "min", "mae": "min", "loss": "min",
    "score": "max",
}  # fmt: skip


@pytest.mark.parametrize("task", [CLICK, RegressionTask("time"), MulticlassTask("effect", classes=3)])
def test_the_direction_of_every_metric_of_a_kind_is_known(task):
    names = list(task.streaming_metrics())
    model = small([task], metrics={task.name: names})
    directions = model._require_compiled().directions()
    assert directions == {
        "loss": "min", f"{task.name}_loss": "min", **{f"{task.name}_{name}": WHICH_END[name] for name in names},
    }  # fmt: skip
    for log in [*directions, "val_score", f"val_{task.name}_score", f"val_ratings_{task.name}_score"]:
        callback = keras.callbacks.EarlyStopping(monitor=f"val_{log.removeprefix('val_')}")
        mtl_zoo.models._data.set_direction(model, callback)
        assert callback.mode == WHICH_END[log.rpartition("_")[2]]


class _NoRun:
    callback = keras.callbacks.Callback()


# fault 12
def test_a_monitored_name_that_nobody_knows_is_refused_before_training():
    x, y = few()
    with pytest.raises(ValueError, match="`EarlyStopping` must be told .*'val_mine'.*mode='max'"):
        small().fit(x, y, verbose=0, callbacks=[keras.callbacks.EarlyStopping(monitor="val_mine")])


@pytest.fixture(scope="module")
def tabular(tmp_path_factory):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"city": rng.choice(list("abcd"), 300), "age": rng.normal(size=300)})
    table["click"] = (rng.random(300) < np.where(table["city"] < "c", 0.7, 0.2)).astype(float)
    path = tmp_path_factory.mktemp("stream") / "rows.parquet"
    table.to_parquet(path)
    transform = FeatureTransform([Categorical("city", dim=4), Numeric("age")], CLICK).fit(table)
    return table, path, transform


# fault 13
@TF
def test_a_stream_is_trained_on_and_evaluated_like_its_table(tabular):
    table, path, transform = tabular
    stream = TableStream(path, transform)

    def trained(x, **arguments):
        keras.utils.set_random_seed(0)
        model = mtl_zoo.SharedBottom(transform, bottom_units=(4,), tower_units=())
        model.compile(keras.optimizers.SGD(0.1))
        history = model.fit(x, batch_size=50, epochs=2, verbose=0, **arguments).history
        return model, history

    (model, logs), (same, same_logs) = trained(stream, shuffle=False), trained(table, shuffle=False)
    assert_same_weights(model, same)
    assert logs["loss"] == pytest.approx(same_logs["loss"], rel=1e-5)
    _, shuffled = trained(stream, validation_data=stream)
    assert shuffled["loss"] != logs["loss"] and "val_click_auc" in shuffled
    expected = mtl_zoo.evaluate(model, table)
    for data in (stream, stream.batches(64)):
        pd.testing.assert_frame_equal(mtl_zoo.evaluate(model, data), expected, rtol=1e-5)
    found = model.evaluate(stream, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(model.evaluate(table, verbose=0, return_dict=True)["loss"], rel=1e-4)
    np.testing.assert_allclose(
        model.predict(stream, verbose=0)["click"], model.predict(table, verbose=0)["click"], atol=1e-6
    )
    with pytest.raises(ValueError, match="`group` must be None with batches"):
        mtl_zoo.evaluate(model, stream, group="city")
    with pytest.raises(ValueError, match="`y` and `sample_weight` must be None with streams and sources"):
        model.fit(stream, table["click"])


# fault 25
def test_loss_weights_and_losses_may_name_some():
    model = compile_eagerly(
        build("shared_bottom"), loss_weights={"like": 0.5}, loss={"click": "binary_focal_crossentropy"}
    )
    config = model.get_compile_config()
    assert config["loss_weights"] == {"click": 1.0, "conversion": 1.0, "like": 0.5}
    assert config["loss"] == {
        "click": "binary_focal_crossentropy",
        "conversion": "binary_crossentropy",
        "like": "binary_crossentropy",
    }
    with pytest.raises(ValueError, match=r"`loss_weights` must name losses of the model. Received unknown: \['adr'\]"):
        build("shared_bottom").compile(loss_weights={"adr": 1.0})


# fault 25
def test_a_string_is_no_task():
    table = pd.DataFrame({"city": ["a", "b"], "click": [0, 1]})
    with pytest.raises(TypeError, match="`tasks` must be BinaryTask.* Received: 'click'"):
        FeatureTransform.infer(table, "click")


# fault 23
def test_a_tasks_name_is_kept_by_label():
    with pytest.raises(ValueError, match=r"`name` may hold.*\(`label=` keeps"):
        BinaryTask("is canceled")


class WithAuxiliary(Towers):
    """A head with a loss of its own: that a logit of no output is small."""

    def tower_names(self, tasks):
        return (*super().tower_names(tasks), "retrieval")

    def auxiliary(self, tasks):
        return ("retrieval",)

    def losses(self, tasks):
        return {**super().losses(tasks), "retrieval": Output("retrieval", tasks[0], "impressions")}

    def default_losses(self, tasks):
        return {**super().default_losses(tasks), "retrieval": squared}

    def logits(self, tasks, towers, tower_units):
        return {
            **super().logits(tasks, towers, tower_units),
            "retrieval": keras.layers.Dense(1, name="retrieval_head")(towers["retrieval"]),
        }

    def targets(self, tasks, labels):
        found = super().targets(tasks, labels)
        return {**found, "retrieval": found[tasks[0].name]}


def squared(y, logits):
    return logits**2


def of_batch(y, logits, batch):
    return keras.ops.sum(batch.observed) + 0 * logits


of_batch.needs_batch = True


# fault 42
def test_a_heads_own_loss_has_a_name_and_may_see_the_batch():
    x, y = few()
    model = mtl_zoo.SharedBottom([Numeric("age")], CLICK, bottom_units=(4,), head=WithAuxiliary())
    compile_eagerly(model)
    assert model.loss_names == ("click", "retrieval") and model.get_compile_config()["loss"]["retrieval"] == "auto"
    expected = np.mean(np.square(model(x)["retrieval"]))
    assert float(model.task_losses(y, model(x))["retrieval"]) == pytest.approx(expected, rel=1e-5)
    y["click"][:5] = np.nan
    compile_eagerly(model, loss={"retrieval": of_batch}, loss_weights={"retrieval": 2.0})
    losses = model.task_losses(y, model(x))
    assert float(losses["retrieval"]) == 35.0 and float(losses["click"]) < 2
    assert set(model.fit(x, y, verbose=0).history) >= {"retrieval_loss", "click_loss"}


# fault 36
@pytest.mark.parametrize(
    "weights, message",
    [
        (-np.ones(40), r"`sample_weight` must hold numbers >= 0 that float32 can hold. Received 40 others: \[-1.0\]"),
        (np.full(40, np.nan), "`sample_weight` must hold numbers >= 0"),
        (np.full(40, 1e39), "`sample_weight` must hold numbers >= 0"),
        (np.full(40, 1e-50), "`sample_weight` must hold numbers >= 0"),
        (np.full(40, "1"), "`sample_weight` must be one number for each of the 40 rows"),
        (2.0, "`sample_weight` must be one number for each of the 40 rows"),
        (np.ones(39), "`sample_weight` must be one number for each of the 40 rows"),
        ({"click": -np.ones(40)}, r"`sample_weight\['click'\]` must hold numbers >= 0"),
    ],
)
def test_weights_in_memory_are_checked(weights, message):
    x, y = few()
    with pytest.raises(ValueError, match=message):
        small().fit(x, y, sample_weight=weights, verbose=0)


# fault 36
def test_arrays_for_validation_are_checked_too():
    x, y = few()
    wrong = {"click": np.where(np.arange(40) == 3, 2.0, y["click"])}
    with pytest.raises(ValueError, match=r"`validation_data\[1\]\['click'\]` must be in 0..1.*\[2.0\]"):
        small().fit(x, y, validation_data=(x, wrong), verbose=0)
    with pytest.raises(ValueError, match=r"`validation_data\[2\]` must hold numbers >= 0"):
        small().fit(x, y, validation_data=(x, y, -np.ones(40)), verbose=0)
    unobserved = {"click": np.full(40, np.nan)}
    assert small().fit(x, y, validation_data=(x, unobserved), verbose=0).history["val_click_loss"] == [0.0]


# fault 36
@TF
@pytest.mark.parametrize(
    "task, label, weight",
    [(CLICK, 2.0, 1.0), (CLICK, 1.0, -1.0), (MulticlassTask("click", classes=3), 3.0, 1.0)],
    ids=["binary", "weight", "multiclass"],
)
def test_illegal_labels_and_weights_of_a_dataset_stop_training(task, label, weight):
    import tensorflow as tf

    x, y = few()
    y["click"][7], weights = label, np.ones(40, "float32")
    weights[7] = weight
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(20)
    with pytest.raises(FloatingPointError, match="The loss of 'click' is not finite at epoch 1, step 1"):
        small([task]).fit(data, verbose=0)


# fault 35
@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: labels_of(RegressionTask("y"), [1.0, 1e39]),
            r"`y` must hold labels within .* float32 holds.*\[1e\+39\]",
        ),
        (
            lambda: labels_of(RegressionTask("y", sample_weight="w"), [1.0, 2.0], w=[1, 1e39]),
            "`w` must hold weights that",
        ),
        (
            lambda: labels_of(RegressionTask("y", sample_weight="w"), [1.0, 2.0], w=[1, 1e-50]),
            "`w` must hold weights that",
        ),
        (lambda: MulticlassTask("y", classes=(2**53 + 1, 5)), r"`classes` must be numbers up to 2\*\*53"),
    ],
)
def test_what_float32_cannot_hold_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def labels_of(task, values, **columns):
    table = pd.DataFrame({"x": np.arange(len(values)), "y": values, **columns})
    transform = FeatureTransform(Numeric("x"), task).fit(table)
    return transform.encode_labels(table), transform.encode_weights(table)


# fault 35
def test_labels_in_arrays_beyond_float32_are_refused():
    model = small([RegressionTask("time")])
    with pytest.raises(ValueError, match=r"`y\['time'\]` must be finite and within"):
        model.fit(few()[0], {"time": np.full(40, 1e39)}, verbose=0)


def test_inputs_of_toys_are_as_before():
    model = compile_eagerly(build("shared_bottom"))
    assert set(model.fit(inputs(), labels(), verbose=0).history) >= {"loss", "click_auc"}
