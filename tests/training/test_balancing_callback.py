"""`BalancingLogger` and `balancing_report`: against what each step did, and against gradients taken one by one."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from toys import build, compile_eagerly, inputs, labels_for, sample_of

import mtl_zoo
from mtl_zoo import BinaryTask, FeatureTransform, Numeric, create_model
from mtl_zoo.balancing import GramBalancing, LossBalancing, create_balancing
from mtl_zoo.datasets import Split
from mtl_zoo.evaluation import balancing_report
from mtl_zoo.training import BalancingLogger

TENSORFLOW = keras.backend.backend() == "tensorflow"
tensorflow = pytest.mark.tensorflow
LOSSES = ("click", "conversion", "like")


@keras.saving.register_keras_serializable(package="test")
class Counting(LossBalancing):
    """The coefficient of the k-th loss at step t is t + k."""

    method_name = "counting"

    def coefficients(self, losses, active):
        return ops.convert_to_tensor(self.step) + ops.arange(len(self.loss_names), dtype="float32")


@keras.saving.register_keras_serializable(package="test")
class Twos(GramBalancing):
    method_name = "twos"

    def coefficients(self, gram, losses, active):
        return 2.0 * ops.ones_like(losses)


def split(rows=64, seed=0):
    return Split(inputs(rows, seed), labels_for(build("shared_bottom"), rows))


def fitted(balancing, logger, epochs=1, batches=5, y=None, name="shared_bottom", optimizer="sgd"):
    model = compile_eagerly(build(name), optimizer, balancing=balancing, metrics=None)
    rows = 8 * batches
    y = labels_for(model, rows) if y is None else y
    model.fit(inputs(rows), y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[logger])
    return model


def test_a_reading_is_the_mean_of_all_steps_since_the_last():
    logger = BalancingLogger(every=3)
    fitted(Counting(), logger, epochs=2)
    report = balancing_report(logger)
    assert report.method == "counting" and report.gradients_of is None
    weights = report.table.pivot(index="step", columns="loss", values="weight")[list(LOSSES)]
    # Steps 0-2, 3-5, 6-8, and the tenth, which is read at the end.
    assert list(weights.index) == [3, 6, 9, 10]
    np.testing.assert_allclose(weights["click"], [1, 4, 7, 9])
    np.testing.assert_allclose(weights["like"], [3, 6, 9, 11])
    assert list(report.time["steps"]) == [3, 3, 3, 1] and set(report.table["active"]) == {3, 1}
    assert report.table["norm"].isna().all() and report.pairs["cosine"].isna().all()
    of_losses = report.losses.set_index("loss")
    assert of_losses.loc["click", "weight"] == pytest.approx(4.5)
    assert (of_losses.loc["click", "first"], of_losses.loc["click", "last"]) == (1, 9)
    assert list(of_losses["active"]) == [10, 10, 10]


def test_steps_in_which_a_task_is_absent_do_not_count_for_it():
    y = labels_for(build("shared_bottom"), 40)
    y["like"][8:24] = np.nan  # the second and third batch
    logger = BalancingLogger(every=5)
    fitted(Counting(), logger, y=y)
    table = balancing_report(logger).table.set_index("loss")
    assert list(table["active"]) == [5, 5, 3]
    assert table.loc["click", "weight"] == pytest.approx(2) and table.loc["like", "weight"] == pytest.approx(2 + 7 / 3)


def test_a_training_without_a_method_has_weights_of_one():
    logger = BalancingLogger(every=2)
    fitted(None, logger)
    report = balancing_report(logger)
    assert report.method == "none" and set(report.table["weight"]) == {1.0} and list(report.time["steps"]) == [2, 2, 1]
    with pytest.raises(ValueError, match="`source` must have been compiled with `balancing=...`"):
        balancing_report(fitted(None, logger))


@tensorflow
def test_a_method_of_gradients_tells_of_norms_and_conflicts():
    keras.utils.set_random_seed(1)
    logger = BalancingLogger(every=2)
    # A learning rate of 0: each batch's gradients can be taken again afterwards.
    model = fitted(Twos(), logger, batches=4, optimizer=keras.optimizers.SGD(0.0))
    report = balancing_report(logger)
    assert report.gradients_of == "dense weights that several losses share"
    norms, cosines = [], []
    for batch in range(4):
        gram = gram_of(model, slice(8 * batch, 8 * batch + 8), 32)
        norms.append(np.sqrt(np.diagonal(gram)))
        cosines.append(gram / np.multiply.outer(norms[-1], norms[-1]))
    for reading, steps in enumerate((slice(0, 2), slice(2, 4))):
        part = report.table[report.table["step"] == 2 * reading + 2]
        expected = np.mean(norms[steps], axis=0)
        np.testing.assert_allclose(part["norm"], expected, rtol=1e-3)
        np.testing.assert_allclose(part["share"], expected / expected.sum(), rtol=1e-3)
        np.testing.assert_allclose(part["weight"], 2.0)
        for row in report.pairs[report.pairs["step"] == 2 * reading + 2].itertuples():
            found = [c[LOSSES.index(row.loss), LOSSES.index(row.other)] for c in cosines[steps]]
            assert row.cosine == pytest.approx(np.mean(found), abs=2e-3)
            assert row.conflict_rate == np.mean(np.array(found) < 0) and row.compared == 2
    whole = balancing_report(model)
    assert list(whole.table["step"]) == [4, 4, 4] and whole.time["seconds"].isna().all()
    for column in ("loss", "other", "cosine", "conflict_rate", "compared"):
        if column in ("loss", "other"):
            assert list(whole.conflicts[column]) == list(report.conflicts[column])
        else:
            np.testing.assert_allclose(whole.conflicts[column], report.conflicts[column], atol=1e-5)
    np.testing.assert_allclose(whole.losses["norm"], np.mean(norms, axis=0), rtol=1e-3)


def gram_of(model, rows, count):
    """Products of gradients of some rows over the dense weights that all losses share, a tape each."""
    import tensorflow as tf

    x = {name: column[rows] for name, column in inputs(count).items()}
    y = {name: column[rows] for name, column in labels_for(model, count).items()}
    shared = [v for v in model.trainable_variables if v.path.startswith("bottom") or "encoder" in v.path]
    assert len(shared) >= 4
    gradients = []
    for loss in LOSSES:
        with tf.GradientTape() as tape:
            value = model.task_losses(y, model(x, training=True))[loss]
        found = tape.gradient(value, [v.value for v in shared])
        gradients.append(
            np.concatenate(
                [
                    np.zeros(v.shape).ravel() if g is None else g.numpy().ravel()
                    for g, v in zip(found, shared, strict=True)
                ]
            )
        )
    return np.stack(gradients) @ np.stack(gradients).T


@tensorflow
def test_gradients_of_a_method_of_losses_are_those_of_a_batch_of_the_split():
    rows = split(40)
    logger = BalancingLogger(every=2, split=rows, batch_size=24)
    model = fitted("static", logger, batches=5, optimizer=keras.optimizers.SGD(0.0))
    report = balancing_report(logger)
    assert report.gradients_of == "dense weights that several losses share, on one batch a reading"
    # Three readings: rows 0-23, 24-39 and from the start again, then on.
    for reading, at in enumerate((np.arange(24), np.r_[24:40, 0:8], np.arange(8, 32))):
        gram = gram_of(model, at, 40)
        norms = np.sqrt(np.diagonal(gram))
        part = report.table.iloc[3 * reading : 3 * reading + 3]
        np.testing.assert_allclose(part["norm"], norms, rtol=1e-3)
        pairs = report.pairs.iloc[3 * reading : 3 * reading + 3]
        np.testing.assert_allclose(
            pairs["cosine"], (gram / np.multiply.outer(norms, norms))[[0, 0, 1], [1, 2, 2]], atol=1e-3
        )
        assert list(pairs["conflict_rate"]) == [float(c < 0) for c in pairs["cosine"]]
    assert list(report.conflicts["compared"]) == [3, 3, 3]


@pytest.mark.extended
@tensorflow
@pytest.mark.parametrize("balancing", sample_of([None, "famo", "pcgrad", "grad_drop"], (None, "famo")))
def test_looking_leaves_no_trace(balancing):
    """Dropout draws, moving statistics, the method's state: training goes on as if nobody had looked."""

    def weights(logger):
        keras.utils.set_random_seed(4)
        model = build("shared_bottom", bottom_units=mtl_zoo.MLP((6,), norm="batch", dropout=0.3))
        given = create_balancing("famo", reevaluates=True) if balancing == "famo" else balancing
        model.compile(keras.optimizers.SGD(0.5), balancing=given, metrics=None)
        model.fit(inputs(32), labels_for(model, 32), batch_size=8, shuffle=False, verbose=0, callbacks=logger)
        return [ops.convert_to_numpy(v) for v in model.weights]

    logger = BalancingLogger(every=1, split=split(), timed=2 if balancing else 0)
    for plain, looked in zip(weights([]), weights([logger]), strict=True):
        np.testing.assert_array_equal(looked, plain)
    report = balancing_report(logger)
    assert len(report.time) == 4 and report.pairs["cosine"].notna().all()
    assert (report.gradient_seconds is not None) == (balancing is not None)


@tensorflow
def test_times(monkeypatch):
    """The clock runs in steps only: not in validation, not in readings."""
    from mtl_zoo.training import balancing_callback

    now = [0.0]
    monkeypatch.setattr(balancing_callback.time, "perf_counter", lambda: now[0])

    class Slow(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            now[0] += 1.0

        def on_test_batch_begin(self, batch, logs=None):
            now[0] += 50.0

        def on_epoch_end(self, epoch, logs=None):
            now[0] += 1000.0

    logger = BalancingLogger(every=2)
    model = compile_eagerly(build("shared_bottom"), "sgd", balancing="pcgrad", metrics=None)
    rows = inputs(24), labels_for(model, 24)
    model.fit(*rows, batch_size=8, epochs=2, validation_data=rows, verbose=0, callbacks=[logger, Slow()])
    report = balancing_report(logger)
    assert list(report.time["seconds"]) == [2, 2, 2] and list(report.time["steps"]) == [2, 2, 2]
    assert report.seconds_per_step == 1.0 and "1e+03 ms a step" in str(report)


@tensorflow
def test_nothing_is_read_between_readings(monkeypatch):
    from mtl_zoo.training import balancing_callback

    read = []
    monkeypatch.setattr(balancing_callback, "read_state", lambda method: read.append(1) or real(method))
    real = mtl_zoo.evaluation.balancing_report.__globals__["read_state"]
    logger = BalancingLogger(every=4)
    fitted("pcgrad", logger, batches=9)
    assert len(read) == 1 + 3


@tensorflow
def test_what_the_report_says_is_in_the_event_file(tmp_path, events):
    logger = BalancingLogger(every=2, log_dir=tmp_path / "logs", split=split())
    model = fitted("uncertainty", logger, batches=4)
    found = events(tmp_path / "logs")
    report = balancing_report(logger)
    for row in report.table.itertuples():
        for column in ("weight", "norm", "share"):
            assert found[f"balancing/{column}/{row.loss}", row.step] == pytest.approx(getattr(row, column), rel=1e-5)
    for row in report.pairs.itertuples():
        tag = f"{row.loss}/{row.other}"
        assert found[f"balancing/cosine/{tag}", row.step] == pytest.approx(row.cosine, rel=1e-5)
        assert found[f"balancing/conflict_rate/{tag}", row.step] == row.conflict_rate
    assert {step for _, step in found} == {2, 4} and len(found) == 2 * (3 * 3 + 2 * 3 + 1)
    assert found["balancing/seconds_per_step", 4] > 0
    # Training that goes on continues the lines.
    again = BalancingLogger(every=2)
    model.fit(inputs(16), labels_for(model, 16), batch_size=8, verbose=0, callbacks=[again])
    assert list(balancing_report(again).time["step"]) == [6]


@tensorflow
def test_several_steps_a_call_and_a_table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(size=60), "click": [0.0, 1.0] * 30, "like": [0.0, 1.0, 1.0] * 20})
    tasks = [BinaryTask("click"), BinaryTask("like")]
    transform = FeatureTransform([Numeric("age")], tasks).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(3,))
    model.compile("sgd", balancing="rlw", metrics=None, steps_per_execution=3)
    logger = BalancingLogger(every=4, split=table, batch_size=100)
    model.fit(table, batch_size=6, verbose=0, callbacks=[logger])
    report = balancing_report(logger)
    # Readings come at the end of the call in which they are due.
    assert report.time["step"].iloc[0] == 6 and report.time["steps"].sum() == 10
    assert report.table["norm"].notna().all()


def test_text_and_picture(tmp_path):
    logger = BalancingLogger(every=2)
    fitted("uncertainty", logger)
    report = mtl_zoo.balancing_report(logger)
    assert "click" in str(report) and "ms a step" in str(report) and "cosine" not in str(report)
    assert "as the plain sum" not in str(report) and not report.table["weight"].isna().any()
    assert report.plot(tmp_path / "a" / "plain.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.extended
@tensorflow
@pytest.mark.parametrize(
    "name, timed",
    [
        pytest.param("cagrad", 0, marks=pytest.mark.slow),
        pytest.param("uncertainty", 2, marks=pytest.mark.slow),
        ("grad_drop", 2),
    ],
)
def test_text_and_picture_with_gradients(tmp_path, name, timed):
    logger = BalancingLogger(every=2, split=split(), timed=timed)
    fitted(name, logger)
    report = mtl_zoo.balancing_report(logger)
    assert "conflict_rate" in str(report)
    assert ("as the plain sum" in str(report)) == bool(timed)
    assert report.table["weight"].isna().all() == (name == "grad_drop")
    assert report.plot(tmp_path / f"{name}.png").stat().st_size > 10_000


def test_errors():
    with pytest.raises(ValueError, match="`every` must be a whole number >= 1"):
        BalancingLogger(every=0)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1"):
        BalancingLogger(batch_size=0)
    with pytest.raises(ValueError, match="`timed` must be a whole number >= 0"):
        BalancingLogger(timed=-1)
    with pytest.raises(ValueError, match="`timed` needs a split, whose rows are timed. Received: timed=3, split=None"):
        BalancingLogger(timed=3)
    with pytest.raises(ValueError, match="`source` must have gone through `fit`"):
        balancing_report(BalancingLogger())
    with pytest.raises(TypeError, match="`source` must be a BalancingLogger or a compiled model. Received: int"):
        balancing_report(3)
    model = compile_eagerly(build("shared_bottom"), balancing="rlw")
    with pytest.raises(ValueError, match="`source` must have been trained. Received: a model at step 0"):
        balancing_report(model)


def test_splits_that_are_refused():
    if not TENSORFLOW:
        with pytest.raises(ValueError, match="`split` must be None on the 'jax' backend"):
            fitted("rlw", BalancingLogger(split=split()))
        return
    with pytest.raises(ValueError, match="`split` must have at least one row"):
        fitted("rlw", BalancingLogger(split=Split({"x": np.zeros(0)}, {})))
    with pytest.raises(ValueError, match="`split` must be None for a model whose losses share no weights.*SingleTask"):
        fitted("rlw", BalancingLogger(split=split()), name="single_task")
