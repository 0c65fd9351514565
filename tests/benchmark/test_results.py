import csv
import gzip
import multiprocessing
import os
import resource
import signal

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.benchmark.results import COLUMNS, ResultStore, append_row


def rows(key, n=3, **more):
    return [{"key": key, "model": "m", "task": f"t{i}", "metric": "auc", "value": i / 4, **more} for i in range(n)]


def test_append_and_read(store):
    assert store.read().empty and store.finished() == set()
    store.append(rows("00ff", hyperparameters='{"a": [1, 2]}', error=""))
    store.append([{"key": "1e5", "error": "ValueError: `x` must\nbe y"}])
    table = store.read()
    assert list(table.columns) == list(COLUMNS)
    assert list(table["key"]) == ["00ff"] * 3 + ["1e5"]
    assert table["value"].tolist()[:3] == [0, 0.25, 0.5] and np.isnan(table["value"].iloc[3])
    assert table["error"].iloc[3] == "ValueError: `x` must be y"
    assert store.finished() == {"00ff"}


def test_values_keep_all_digits_and_nan(store):
    store.append([{"key": "a", "value": 0.1 + 0.2}, {"key": "a", "value": float("nan")}])
    assert store.read()["value"].iloc[0] == 0.1 + 0.2
    assert np.isnan(store.read()["value"].iloc[1])


def test_a_line_cut_short_goes_with_its_run(store):
    store.append(rows("a"))
    whole = store.path.read_bytes()
    store.append(rows("b"))
    torn = store.path.read_bytes()[:-10]
    store.path.write_bytes(torn)
    store.append(rows("c"))
    assert store.path.read_bytes().startswith(whole)
    assert list(store.read()["key"]) == ["a"] * 3 + ["c"] * 3


# fault 28
@pytest.mark.parametrize("lost", [1, 50, 200, "a line"])
def test_a_run_is_finished_when_all_its_rows_are_there(store, lost):
    store.append(rows("a"))
    whole = store.path.read_bytes()
    store.append([{"key": "b", "error": "MemoryError"}])
    store.append(rows("b", n=8))
    assert store.finished() == {"a", "b"} and store.read()["run_rows"].tolist() == [3] * 3 + [1] + [8] * 8
    content = store.path.read_bytes()
    store.path.write_bytes(content[: content[:-1].rindex(b"\n") + 1] if lost == "a line" else content[:-lost])
    assert store.finished() == {"a"} and store.read()["key"].tolist() == ["a"] * 3 + ["b"]
    store.append(rows("b", n=8))
    assert store.finished() == {"a", "b"} and len(store.read()) == 12
    assert store.path.read_bytes() == content and content.startswith(whole)


# fault 28
@pytest.mark.parametrize("function", ["append", "append_row"])
def test_a_full_disk_leaves_nothing_of_a_run(tmp_path, function):
    """A file system takes what fits, says so, and refuses only the next write."""
    store = ResultStore(tmp_path / "r.csv")
    store.append(rows("a"))
    before = store.path.read_bytes()
    process = multiprocessing.get_context("fork").Process(target=_append_to_full, args=(store, function, len(before)))
    process.start()
    process.join(60)
    assert process.exitcode == 27, "OSError"
    assert store.path.read_bytes() == before and store.finished() == {"a"}
    store.append(rows("b", n=200))
    assert store.finished() == {"a", "b"}


def _append_to_full(store, function, size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
    try:
        if function == "append":
            store.append(rows("b", n=200))
        else:
            append_row(store.path, COLUMNS, rows("b", error="x" * 200)[0])
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)


# fault 28
@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1", "-1", "@sum", "'=1", "plain"])
def test_no_cell_is_a_formula(store, tmp_path, text):
    store.append([{"key": "a", "error": text}])
    (row,) = csv.DictReader(store.path.open())
    assert row["error"] == (text if text == "plain" else f"'{text}")
    assert store.read()["error"].tolist() == [text]
    append_row(tmp_path / "other.csv", ("a", "b"), {"a": text, "b": -1.5, "c": 3})
    (row,) = csv.DictReader((tmp_path / "other.csv").open())
    assert row == {"a": text if text == "plain" else f"'{text}", "b": "-1.5"}


def test_a_failed_write_leaves_nothing(store, monkeypatch):
    store.append(rows("a"))
    before = store.path.read_bytes()

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.append(rows("b"))
    assert store.path.read_bytes() == before


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    for call in (ResultStore(path).read, lambda: ResultStore(path).append(rows("a"))):
        with pytest.raises(ValueError, match=r"`path` must be a results file with the columns key, .*with a,b"):
            call()
    assert path.read_text() == "a,b\n1,2\n"
    with pytest.raises(ValueError, match="`path` must be a file"):
        ResultStore(tmp_path)


def test_unknown_columns_are_refused(store):
    with pytest.raises(ValueError, match=r"`rows` must have the columns of the file. Received: \['metrics'\]"):
        store.append([{"key": "a", "metrics": 1}])
    assert not store.path.exists()


def _write(path, name):
    for i in range(20):
        ResultStore(path).append(rows(f"{name}{i}", n=5))


def test_processes_do_not_mix_their_rows(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(store.path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    keys = store.read()["key"].to_numpy()
    assert len(keys) == 300
    assert (keys.reshape(60, 5) == keys[::5, None]).all()
    assert len(set(keys)) == 60


def test_a_packed_file_is_read_and_not_added_to(store):
    store.append([{"key": "1f", "model": "mmoe", "value": 0.75}])
    packed = store.path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(store.path.read_bytes()))
    pd.testing.assert_frame_equal(ResultStore(packed).read(), store.read())
    with pytest.raises(ValueError, match="`path` is packed and can be read only"):
        ResultStore(packed).append([{"key": "2f"}])


@pytest.mark.parametrize("lacks", [("run_rows",), ("run_rows", "parameter_match")])
def test_a_file_of_an_earlier_version_is_read_and_not_added_to(store, lacks):
    store.append([{"key": "1f", "model": "mmoe", "value": 0.75}])
    names, line = store.path.read_text().splitlines()
    places = [COLUMNS.index(name) for name in lacks]
    cut = [",".join(c for i, c in enumerate(text.split(",")) if i not in places) for text in (names, line)]
    store.path.write_text("\n".join(cut) + "\n")
    (row,) = store.read().to_dict("records")
    assert store.finished() == {"1f"}
    assert list(store.read().columns) == list(COLUMNS)
    assert (row["key"], row["model"], row["value"], row["parameter_match"]) == ("1f", "mmoe", 0.75, "")
    with pytest.raises(ValueError, match="`path` must be a results file with the columns key, "):
        store.append(rows("a"))
