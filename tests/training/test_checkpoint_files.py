"""Checkpoints that are not whole, writes that fail, and what lies beside them in the folder."""

import errno
import json
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import keras
import pytest
from cut_runs import EPOCHS, assert_same, train
from toys import sample_of

from mtl_zoo.training import Checkpoints, checkpoints

pytestmark = pytest.mark.tensorflow


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


@pytest.mark.extended
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


@pytest.mark.extended
def test_a_folder_that_vanishes_does_not_end_training(tmp_path, caplog):
    run = tmp_path / "run"
    _, history, _ = train(run, callbacks=[After(5, lambda: shutil.rmtree(run))])
    assert len(history["loss"]) == EPOCHS
    assert "no checkpoint at step 8: [Errno 2] No such file or directory" in caplog.text


# fault 27, fault 31
@pytest.mark.extended
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


@pytest.mark.extended
def test_what_a_killed_writer_left_is_removed(tmp_path):
    train(tmp_path, stop_after=5)
    (tmp_path / "step-000000000008.ckpt.part").write_bytes(b"half")
    _, _, saves = train(tmp_path)
    assert saves.resumed_from.total == 4
    assert not list(tmp_path.glob("*.part"))


def test_only_the_newest_are_kept(tmp_path):
    train(tmp_path, every={"every_steps": 2, "keep": 3})
    assert [checkpoints._total(path) for path in checkpoints._checkpoints(tmp_path)] == [14, 16, 18]


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
        train(tmp_path, stop_after=5)
    with pytest.raises(ValueError, match="has format 2, written by a newer mtl_zoo; this version reads up to 1"):
        train(tmp_path)
