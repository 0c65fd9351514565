"""Files and folders that are written whole or not at all: whatever else lies there stays."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mtl_zoo import _files
from mtl_zoo._files import DamagedFile, name_within, read_json, refuse_other_content, whole_file, whole_folder


def save(folder, files, marker="cache.json", what="a cache"):
    refuse_other_content("folder", folder, marker, what)
    with whole_folder(folder) as part:
        for name, text in files.items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text(text)


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.name != _files.LISTING)


def test_a_folder_is_replaced_by_the_next(tmp_path):
    save(tmp_path / "c", {"cache.json": "1", "a/b.bin": "x"})
    save(tmp_path / "c", {"cache.json": "2", "c.bin": "y"})
    assert names(tmp_path) == ["c", "c/c.bin", "c/cache.json"] and (tmp_path / "c" / "cache.json").read_text() == "2"


# fault 27
@pytest.mark.parametrize("marker", ["transform.json", "cache.json", "saved_model.pb"])
def test_a_marker_is_no_proof_that_a_folder_is_ours(tmp_path, marker):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / marker).write_text("{}")
    (mine / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match=r"`folder` must be new, empty, or hold .*, with \d other files: .*thesis.tex"):
        save(mine, {marker: "1"}, marker)
    assert (mine / "thesis.tex").read_text() == "years"
    (mine / "thesis.tex").unlink()
    if marker != "saved_model.pb":
        with pytest.raises(ValueError, match=f"1 other files: {marker}"):
            save(mine, {marker: "1"}, marker)


# fault 27
@pytest.mark.parametrize("theirs", ["m.keras", "notes/a.txt", "empty/"])
def test_what_others_put_into_our_folder_is_refused_by_name(tmp_path, theirs):
    save(tmp_path / "c", {"cache.json": "1"})
    path = tmp_path / "c" / theirs
    path.mkdir() if theirs.endswith("/") else path.parent.mkdir(exist_ok=True)
    if not theirs.endswith("/"):
        path.write_text("mine")
    with pytest.raises(ValueError, match=theirs.split("/")[0]):
        save(tmp_path / "c", {"cache.json": "2"})
    assert path.exists() and (tmp_path / "c" / "cache.json").read_text() == "1"


# fault 27
def test_what_comes_in_while_we_write_is_kept(tmp_path):
    save(tmp_path / "c", {"cache.json": "1"})
    with whole_folder(tmp_path / "c") as part:
        (part / "cache.json").write_text("2")
        (tmp_path / "c" / "thesis.tex").write_text("years")
    kept = list(tmp_path.rglob("thesis.tex"))
    assert len(kept) == 1 and kept[0].read_text() == "years" and (tmp_path / "c" / "cache.json").read_text() == "2"


# fault 27
def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    save(tmp_path / "link", {"cache.json": "1"})
    save(tmp_path / "link", {"cache.json": "2"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "cache.json").read_text() == "2"
    (tmp_path / "file").write_text("old")
    (tmp_path / "to_file").symlink_to("file")
    with whole_file(tmp_path / "to_file") as part:
        part.write_text("new")
    assert (tmp_path / "to_file").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_folders_of_0_1_0_had_no_listing(tmp_path):
    old = tmp_path / "c"
    old.mkdir()
    (old / "cache.json").write_text('{"format": 1}')
    (old / "0.bin").write_text("x")
    save(old, {"cache.json": "2"})
    assert names(old) == ["cache.json"]


# fault 31
def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    for name in ("c.00000001.part", "c.00000002.old", "c.00000003.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "c.00000001.part" / _files.LISTING).write_text('{"files": null}')
    (tmp_path / "c.00000001.part" / "0.bin").write_text("half")
    (tmp_path / "c.00000003.part" / "thesis.tex").write_text("years")
    (tmp_path / ".00000004.part.m.keras").write_text("half")
    (tmp_path / "c.part").mkdir()
    with whole_folder(tmp_path / "c") as living:
        (living / "cache.json").write_text("1")
        with whole_folder(tmp_path / "c") as part:
            (part / "cache.json").write_text("2")
        assert living.exists()
    with whole_file(tmp_path / "m.keras") as part:
        assert part.suffix == ".keras"
        part.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.00000003.part", "c.part", "m.keras"]
    assert (tmp_path / "c" / "cache.json").read_text() == "1"


# fault 31
def test_without_exchange_in_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_exchange", lambda one, other: False)
    save(tmp_path / "c", {"cache.json": "1"})
    save(tmp_path / "c", {"cache.json": "2"})
    assert names(tmp_path) == ["c", "c/cache.json"] and (tmp_path / "c" / "cache.json").read_text() == "2"
    # Killed between the two renamings: the next writer puts the old one back before it writes.
    os.rename(tmp_path / "c", tmp_path / "c.0123abcd.old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "c"):
        raise RuntimeError
    assert names(tmp_path) == ["c", "c/cache.json"]


def test_a_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "m.keras"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and names(tmp_path) == ["m.keras"]
    with whole_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640


# The module alone: importing the package takes longer than a hundred saves.
_SAVER = """
import importlib.util, json, pathlib, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec); spec.loader.exec_module(files)
folder, number, most = pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
for i in range(most):
    files.refuse_other_content("folder", folder, "cache.json", "a cache")
    with files.whole_folder(folder) as part:
        for name in ("0.bin", "1.bin"):
            (part / name).write_text(f"{number} {i}")
        (part / "cache.json").write_text(json.dumps({"format": 1, "is": f"{number} {i}"}))
    with files.whole_file(folder.parent / "m.keras") as part:
        part.write_text(f"{number} {i} " * 1000)
"""


def saver(folder, number, most):
    command = [sys.executable, "-c", _SAVER, _files.__file__, str(folder), str(number), str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# fault 31
def test_four_processes_save_to_one_folder(tmp_path):
    processes = [saver(tmp_path / "c", number, 25) for number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert names(tmp_path) == ["c", "c/0.bin", "c/1.bin", "c/cache.json", "m.keras"]
    assert (tmp_path / "c" / "0.bin").read_text() == json.loads((tmp_path / "c" / "cache.json").read_text())["is"]


# fault 31: what another process does at the worst moment, as it happened once in many runs
@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_new_part_that_is_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch, moment):
    taken, real = [], os.open

    def open_after_a_removal(path, *arguments):
        if not taken and str(path).endswith(".part"):
            taken.append(path)
            if moment == "before it is opened":
                os.rmdir(path)
                return real(path, *arguments)
            descriptor = real(path, *arguments)
            os.rmdir(path)
            return descriptor
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", open_after_a_removal)
    save(tmp_path / "c", {"cache.json": "{}"})
    assert taken and names(tmp_path) == ["c", "c/cache.json"]


# fault 31, fault 38
@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_whole_folder(tmp_path, kills):
    folder = tmp_path / "c"
    save(folder, {"cache.json": '{"is": "x"}', "0.bin": "x", "1.bin": "x"})
    (tmp_path / "m.keras").write_text("x x ")
    chance = random.Random(7)
    for kill in range(kills):
        process = saver(folder, kill, 10**6)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        saved = json.loads((folder / "cache.json").read_text())["is"]
        assert {(folder / name).read_text() for name in ("0.bin", "1.bin")} == {saved}
        assert len(set(zip(*[iter((tmp_path / "m.keras").read_text().split())] * 2, strict=True))) == 1
    assert saver(folder, kills, 1).wait(60) == 0
    assert names(tmp_path) == ["c", "c/0.bin", "c/1.bin", "c/cache.json", "m.keras"]


# fault 32
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"format": "1"}', '{"format": true}', '{"rows": 3}', "[" * 100_000, "\udcff", "NaN"],
)
def test_damaged_metadata_is_one_named_error(tmp_path, text):
    path = tmp_path / "cache.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(DamagedFile, match=r"A file of a cache must be as it was written. Received: '.*cache.json'"):
        read_json(path, "a cache", {"format": int})


def test_metadata_that_is_whole(tmp_path):
    (tmp_path / "cache.json").write_text('{"format": 1, "more": null}')
    assert read_json(tmp_path / "cache.json", "a cache", {"format": int}) == {"format": 1, "more": None}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "other.json", "a cache", {})


# fault 32
@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/b", "..", "", ".", "a\0b", 3, None])
def test_names_lead_out_of_no_folder(tmp_path, name):
    with pytest.raises(DamagedFile, match="A file of a cache must lie in its folder. Received: "):
        name_within(tmp_path, name, "a cache")
    assert name_within(tmp_path, "0.bin", "a cache") == tmp_path / "0.bin"
