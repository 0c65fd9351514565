"""Training that was interrupted goes on to the weights of training that was not."""

import errno
import json
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from toys import sample_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo.features.streaming import TableStream
from mtl_zoo.models._fingerprint import fingerprint
from mtl_zoo.options import MLP
from mtl_zoo.training import Checkpoints, checkpoints

pytestmark = pytest.mark.tensorflow
ROWS, BATCH, EPOCHS = 88, 16, 3  # 6 batches an epoch, the last one short
TASKS = [BinaryTask("click"), BinaryTask("like")]


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends training after some steps, as a power cut would."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= self.model.steps_per_execution
        if self.left <= 0:
            raise Interrupted


def rows(seed=0):
    rng = np.random.default_rng(seed)
    x = {"user_id": rng.integers(0, 32, ROWS).astype("int32"), "age": rng.normal(size=ROWS).astype("float32")}
    return x, {task.name: rng.integers(0, 2, ROWS).astype("float32") for task in TASKS}


def make_model(balancing=None, optimizer="auto", steps=1, units=6, eager=True):
    features = [Categorical("user_id", size=30, dim=4), Numeric("age")]
    bottom = MLP((units,), dropout=0.3)
    model = mtl_zoo.create_model("shared_bottom", features, TASKS, bottom_units=bottom, tower_units=(4,))
    optimizer = optimizer() if callable(optimizer) else optimizer
    # Tracing a graph takes longer than these few steps.
    model.compile(optimizer, balancing=balancing, steps_per_execution=steps, run_eagerly=eager)
    return model


def train(folder, stop_after=None, seed=0, callbacks=(), data=None, every=None, **options):
    """(model, history or None if interrupted, callback)"""
    keras.utils.set_random_seed(seed)
    model = make_model(**options)
    saves = Checkpoints(folder, **({"every_steps": 4} if every is None else every))
    x, y = rows() if data is None else (data(saves), None)
    stop = [] if stop_after is None else [Interrupt(stop_after)]
    arguments = {} if data is not None else {"batch_size": BATCH}
    try:
        found = model.fit(
            x, y, epochs=EPOCHS, verbose=0, validation_data=rows(1), callbacks=[saves, *callbacks, *stop], **arguments
        )
    except Interrupted:
        return model, None, saves
    return model, found.history, saves


def assert_same(model, other):
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    for a, b in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.fixture(scope="module")
def cut_run(tmp_path_factory):
    """The folder of a run that was cut at step 10: its checkpoints are of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    _, _, saves = train(folder, stop_after=10)
    assert saves.resumed_from is None
    return folder


@pytest.fixture
def cut(cut_run, tmp_path):
    """A copy of it of the test's own."""
    return Path(shutil.copytree(cut_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model whose training was not interrupted."""
    return train(tmp_path_factory.mktemp("whole"))[0]


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


def test_where_a_run_goes_on(cut, whole):
    assert [path.name for path in checkpoints._checkpoints(cut)] == [
        "step-000000000004.ckpt",
        "step-000000000008.ckpt",
    ]
    assert Checkpoints(cut).epoch == 1
    model, _, saves = train(cut)
    assert saves.resumed_from[:3] == (1, 2, 8)
    assert_same(whole, model)
    # A run that has ended trains no more.
    again, history, saves = train(cut)
    assert saves.resumed_from[:3] == (EPOCHS, 0, 18) and not history
    assert_same(model, again)


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


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-100])


def spoil_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_all(path):
    path.write_bytes(b"")


SPOIL = {"end": spoil_end, "middle": spoil_middle, "all": spoil_all}


@pytest.mark.parametrize("what", sample_of(SPOIL, ("middle",)))
def test_the_one_before_is_used_when_one_is_not_whole(tmp_path, cut, whole, what, caplog):
    spoil = SPOIL[what]
    first, second = checkpoints._checkpoints(cut)
    spoil(second)
    shutil.copytree(cut, tmp_path / "copy")
    model, _, saves = train(cut)
    assert saves.resumed_from.total == 4
    assert "step-000000000008.ckpt is not whole" in caplog.text
    assert_same(whole, model)
    spoil(tmp_path / "copy" / first.name)
    assert Checkpoints(tmp_path / "copy").epoch == 0


def test_one_that_is_not_whole_does_not_crowd_out_those_that_are(cut):
    spoil_end(checkpoints._checkpoints(cut)[-1])
    train(cut, stop_after=3, every={"every_steps": 3, "keep": 1})
    assert sorted(path.name for path in cut.iterdir()) == [
        "step-000000000006.ckpt",
        "step-000000000008.ckpt.bad",
    ]
    _, _, saves = train(cut, stop_after=1)
    assert saves.resumed_from.total == 6


@pytest.mark.slow  # the next but one meets a limit of the real system
def test_a_write_that_fails_keeps_the_last_one(tmp_path, monkeypatch, caplog):
    real, writes = checkpoints._write_array, []

    def full(archive, name, array):
        writes.append(name)
        if len(writes) > 60:  # in the middle of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        real(archive, name, array)

    monkeypatch.setattr(checkpoints, "_write_array", full)
    count = len(checkpoints._state(train(tmp_path / "count", stop_after=1)[0]))
    assert 30 < count < 60 or pytest.fail(f"{count} variables: choose another limit")
    writes.clear()
    model, history, _ = train(tmp_path / "run")
    assert len(history["loss"]) == EPOCHS, "training goes on"
    assert "no checkpoint at step 8: [Errno 28] No space left on device; the last one stays" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-000000000004.ckpt"]
    monkeypatch.undo()
    resumed, _, saves = train(tmp_path / "run")
    assert saves.resumed_from.total == 4
    assert_same(model, resumed)


class After(keras.callbacks.Callback):
    """Calls a function once, after a step."""

    def __init__(self, step, function):
        super().__init__()
        self.left, self._function = step, function

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self._function()


def test_a_limit_of_the_system_that_is_met_in_a_write_keeps_the_last_one(tmp_path, caplog):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        size = (tmp_path / "step-000000000004.ckpt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))

    try:
        model, history, _ = train(tmp_path, callbacks=[After(5, limit)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(history["loss"]) == EPOCHS
    assert "no checkpoint at step 8: [Errno 27] File too large; the last one stays" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000004.ckpt"]
    resumed, _, saves = train(tmp_path)
    assert saves.resumed_from.total == 4
    assert_same(model, resumed)


def test_a_folder_that_vanishes_does_not_end_training(tmp_path, caplog):
    run = tmp_path / "run"
    _, history, _ = train(run, callbacks=[After(5, lambda: shutil.rmtree(run))])
    assert len(history["loss"]) == EPOCHS
    assert "no checkpoint at step 8: [Errno 2] No such file or directory" in caplog.text


# fault 27, fault 31
def test_only_its_own_leftovers_are_removed(tmp_path):
    train(tmp_path, stop_after=5)
    (tmp_path / "thesis.part").write_text("years")
    (tmp_path / "folder.part").mkdir()
    (tmp_path / "step-000000000008.ckpt.part").mkdir()
    for name in ("step-000000000006.ckpt.part", ".0123abcd.part.step-000000000006.ckpt"):
        (tmp_path / name).write_text("half")
    _, history, saves = train(tmp_path, every={"keep": 1})
    assert saves.resumed_from.total == 4 and history
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.part",
        "step-000000000008.ckpt.part",
        "step-000000000018.ckpt",
        "thesis.part",
    ]


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


# fault 32
@pytest.mark.parametrize("header", ["{", "[]", '{"format": 1}', '{"format": "1"}', "position"])
def test_a_damaged_header_is_as_a_damaged_file(cut, header, caplog):
    path = checkpoints._checkpoints(cut)[-1]
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if header == "position":
        header = json.dumps({**json.loads(content["header.json"]), "position": {"epoch": 1}})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, "header.json": header.encode()}.items():
            archive.writestr(name, data)
    _, _, saves = train(cut, stop_after=1)
    assert saves.resumed_from.total == 4 and "step-000000000008.ckpt is not whole" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="`folder` must be a folder that can be written. Received: folder='.*file'"):
        train(tmp_path / "file")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OSError, match="`folder` must be on a disk with room for a checkpoint of .* 1,000 bytes free"):
        train(tmp_path / "run")


def test_what_a_killed_writer_left_is_removed(tmp_path):
    train(tmp_path, stop_after=5)
    (tmp_path / "step-000000000008.ckpt.part").write_bytes(b"half")
    _, _, saves = train(tmp_path)
    assert saves.resumed_from.total == 4
    assert not list(tmp_path.glob("*.part"))


def test_only_the_newest_are_kept(tmp_path):
    train(tmp_path, every={"every_steps": 2, "keep": 3})
    assert [checkpoints._total(path) for path in checkpoints._checkpoints(tmp_path)] == [14, 16, 18]


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


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
        train(tmp_path, stop_after=5)
    with pytest.raises(ValueError, match="has format 2, written by a newer mtl_zoo; this version reads up to 1"):
        train(tmp_path)


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
