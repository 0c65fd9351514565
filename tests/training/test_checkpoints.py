"""Training that was interrupted goes on to the weights of training that was not."""

import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from cut_runs import BATCH, EPOCHS, ROWS, TASKS, Interrupt, Interrupted, assert_same, make_model, rows, train
from toys import sample_of

import mtl_zoo
from mtl_zoo import Categorical, FeatureTransform, Numeric
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.models._fingerprint import fingerprint
from mtl_zoo.training import Checkpoints, checkpoints

pytestmark = pytest.mark.tensorflow


def accumulating():
    return keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)


CASES = {
    # Interrupted after so many steps; the checkpoint is of step 8, in the second epoch.
    "plain": (10, {"eager": False}),
    "random weights of losses": (10, {"balancing": "rlw"}),
    "state of a gradient method": (10, {"balancing": "imtl_g", "optimizer": "adam"}),
    "three steps an execution": (10, {"steps": 3, "eager": False}),
    "accumulated gradients": (10, {"optimizer": accumulating}),
    "several interruptions": (5, {}),
}


@pytest.mark.parametrize("name", sample_of(CASES, ("three steps an execution", "accumulated gradients")))
def test_interrupted_training_ends_with_the_same_numbers(tmp_path, name):
    stop_after, options = CASES[name]
    whole, history, _ = train(tmp_path / "whole", **options)
    resumed = None
    for seed in range(1, 9):  # another seed each time: what counts is in the checkpoint
        model, rest, saves = train(tmp_path / "cut", stop_after=stop_after, seed=seed - 1, **options)
        resumed = saves.resumed_from
        if rest is not None:
            break
    assert resumed is not None and resumed.total < 18
    assert_same(whole, model)
    for metric, values in history.items():
        np.testing.assert_array_equal(values[resumed.epoch :], rest[metric], err_msg=metric)


@pytest.mark.extended
@pytest.mark.parametrize("kind", sample_of(["fixed", "streamed"], ("streamed",)))
def test_the_order_of_a_dataset_and_of_a_stream_goes_on(tmp_path, kind):
    x, y = rows()
    table = pd.DataFrame({**x, **y, "user_id": x["user_id"].astype(str)})
    table.to_parquet(tmp_path / "rows.parquet", row_group_size=20)
    transform = FeatureTransform([Categorical("user_id"), Numeric("age")], TASKS).fit(table)
    stream = mtl_zoo.features.streaming.TableStream(tmp_path / "rows.parquet", transform)

    def fixed(saves):
        return mtl_zoo.features.make_batches(x, y, batch_size=BATCH)

    def streamed(saves):
        return stream.batches(BATCH, shuffle=True, seed=5, epoch=saves.epoch)

    data = {"fixed": fixed, "streamed": streamed}[kind]
    whole, _, _ = train(tmp_path / "whole", data=data)
    train(tmp_path / "cut", stop_after=10, data=data)
    model, _, saves = train(tmp_path / "cut", data=data)
    assert saves.resumed_from.step == 2
    assert_same(whole, model)


# fault 13
@pytest.mark.extended
def test_a_stream_in_fits_own_order_goes_on(tmp_path):
    x, y = rows()
    table = pd.DataFrame({**x, **y})
    table.to_parquet(tmp_path / "rows.parquet")
    transform = FeatureTransform([Categorical("user_id", dim=4), Numeric("age")], TASKS).fit(table)

    def fit(folder, seed, stop_after=None):
        keras.utils.set_random_seed(seed)
        model = mtl_zoo.create_model("shared_bottom", transform, bottom_units=(6,), tower_units=())
        model.compile("adam")
        saves = Checkpoints(tmp_path / folder, every_steps=4)
        callbacks = [saves, *([] if stop_after is None else [Interrupt(stop_after)])]
        stream = TableStream(tmp_path / "rows.parquet", transform, shuffle_rows=40)
        model.fit(stream, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        return model, saves

    whole, _ = fit("whole", 0)
    with pytest.raises(Interrupted):
        fit("cut", 0, stop_after=10)
    model, saves = fit("cut", 7)
    assert saves.resumed_from.total == 8
    assert_same(whole, model)


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """The folder of a run on all rows."""
    folder = tmp_path_factory.mktemp("other") / "run"
    fit_some(folder)
    return folder


def fit_some(folder, count=ROWS, batch=BATCH, change=None, **arguments):
    model = make_model()
    x, y = rows()
    x, y = {k: v[:count] for k, v in x.items()}, {k: v[:count].copy() for k, v in y.items()}
    if change is not None:
        y["click"][change] = 1 - y["click"][change]
    model.fit(x, y, batch_size=batch, verbose=0, callbacks=[Checkpoints(folder, every_steps=2)], **arguments)


# fault 29
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"batch": 50}, r"with batch_size=16; this run has batch_size=50"),
        ({"count": 20}, r"with rows=88, sample='\w+'; this run has rows=20, sample='\w+'"),
        ({"change": 0}, r"with sample='(\w+)'; this run has sample='(?!\1)"),
        ({"shuffle": False}, r"with shuffle=True; this run has shuffle=False"),
        ({"sample_weight": np.ones(ROWS)}, "with sample="),
    ],
    ids=["batch", "rows", "label", "order", "weights"],
)
def test_other_data_or_batches_are_refused_with_both_shown(other_run, other, message):
    with pytest.raises(ValueError, match=f"`folder` must hold checkpoints of a run on the same data.*{message}"):
        fit_some(other_run, **other)


# fault 29
def test_the_same_data_for_more_epochs_go_on(other_run, tmp_path):
    fit_some(shutil.copytree(other_run, tmp_path / "run"), epochs=2)


# fault 29
def test_batches_of_a_dataset_are_counted(tmp_path):
    def fit(batch_size):
        data = mtl_zoo.features.make_batches(*rows(), batch_size=batch_size)
        make_model().fit(data, verbose=0, callbacks=[Checkpoints(tmp_path)])

    fit(16)
    with pytest.raises(ValueError, match="with batches=6; this run has batches=2"):
        fit(50)
    fit(16)


# fault 29
def test_a_fingerprint_of_tables_is_of_their_values():
    import pyarrow as pa

    x, y = rows()
    for kind in (pd.DataFrame, pa.table):
        same, other = (fingerprint(kind({**x, **y}), None, None, 16, True) for _ in range(2))
        changed = fingerprint(kind({**x, **y, "age": x["age"] + 1}), None, None, 16, True)
        assert same == other != changed and same["rows"] == ROWS and "click" in same["columns"]
    cells = pd.DataFrame({"tags": [[1, 2], None], "name": ["a", None]})
    assert fingerprint(cells, None, None, 1, True)["rows"] == 2


# fault 37
def test_two_checkpoints_in_one_fit_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`callbacks` must hold one Checkpoints at most. Received: 2, of \['.*a', '.*b'\]"
    ):
        make_model().fit(*rows(), callbacks=[Checkpoints(tmp_path / "a"), Checkpoints(tmp_path / "b")])


# fault 37
def test_a_batch_size_may_be_a_numpy_number(tmp_path):
    fit_some(tmp_path, batch=np.int64(44))
    fit_some(tmp_path, batch=44)


@pytest.mark.extended
def test_minutes_and_epochs(tmp_path, monkeypatch):
    train(tmp_path / "epochs", every={"keep": 9})
    assert [checkpoints._total(path) for path in checkpoints._checkpoints(tmp_path / "epochs")] == [6, 12, 18]
    clock = iter(range(0, 10**6, 60))  # a minute passes whenever it is looked at
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(clock))
    train(tmp_path / "minutes", every={"every_minutes": 3, "keep": 9})
    totals = [checkpoints._total(path) for path in checkpoints._checkpoints(tmp_path / "minutes")]
    assert totals == [3, 6, 9, 12, 15, 18]


def test_a_loss_that_is_not_finite_is_not_kept(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                bias = self.model.trainable_variables[-1]
                bias.assign(np.full(bias.shape, np.nan, "float32"))

    with pytest.raises(FloatingPointError, match="is not finite at epoch 1, step 4"):
        train(tmp_path, callbacks=[Spoil()], every={"every_steps": 1})
    assert [checkpoints._total(path) for path in checkpoints._checkpoints(tmp_path)] == [2, 3]


def test_wrong_arguments(tmp_path):
    for arguments, message in (
        ({"every_steps": 0}, "`every_steps` must be a whole number >= 1"),
        ({"every_minutes": 0}, "`every_minutes` must be"),
        ({"keep": 0}, "`keep` must be a whole number >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Checkpoints(tmp_path, **arguments)


def test_what_cannot_go_on_is_refused(tmp_path):
    import tensorflow as tf

    x, y = rows()
    model, unknown = make_model(), tf.data.Dataset.from_generator(lambda: iter(()), output_signature=tf.TensorSpec(()))
    with pytest.raises(ValueError, match="`x` must be arrays, a table or a tf.data.Dataset with a known number"):
        model.fit(unknown, callbacks=[Checkpoints(tmp_path)])
    for argument, value in (("steps_per_epoch", 3), ("validation_split", 0.5)):
        with pytest.raises(ValueError, match=f"`{argument}` must be None with Checkpoints"):
            model.fit(x, y, callbacks=[Checkpoints(tmp_path)], **{argument: value})
    train(tmp_path, stop_after=5)
    with pytest.raises(ValueError, match="`folder` must hold checkpoints of this model and optimizer, or none"):
        train(tmp_path, units=7)


def test_other_backends_are_refused(tmp_path, monkeypatch):
    model, (x, y) = make_model(), rows()
    monkeypatch.setattr("mtl_zoo._backend.is_tensorflow", lambda: False)
    with pytest.raises(ValueError, match="`callbacks` may hold Checkpoints on TensorFlow only"):
        model.fit(x, y, callbacks=[Checkpoints(tmp_path)])


def test_a_worker_that_does_not_see_the_folder(tmp_path, monkeypatch):
    # The chief has found the checkpoint of step 8, and this worker has another folder of the same name.
    monkeypatch.setattr("mtl_zoo._distribute.same_on_all_workers", lambda model, number: 8)
    with pytest.raises(OSError, match="`folder` must be one that all workers see. .* has no step-000000000008.ckpt"):
        train(tmp_path)
