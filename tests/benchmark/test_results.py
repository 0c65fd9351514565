import gzip
import multiprocessing
import os

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.benchmark.results import COLUMNS, ResultStore


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


def test_a_file_of_an_earlier_version_is_read_and_not_added_to(store):
    store.append([{"key": "1f", "model": "mmoe", "value": 0.75}])
    names, line = store.path.read_text().splitlines()
    place = COLUMNS.index("parameter_match")
    cut = [",".join(c for i, c in enumerate(text.split(",")) if i != place) for text in (names, line)]
    store.path.write_text("\n".join(cut) + "\n")
    (row,) = store.read().to_dict("records")
    assert list(store.read().columns) == list(COLUMNS)
    assert (row["key"], row["model"], row["value"], row["parameter_match"]) == ("1f", "mmoe", 0.75, "")
    with pytest.raises(ValueError, match="`path` must be a results file with the columns key, "):
        store.append(rows("a"))
