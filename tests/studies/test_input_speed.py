"""The comparison of `fit` from files with `fit` from memory, on files of a few rows."""

import pytest

from benchmarks.studies import input_speed

pytestmark = pytest.mark.tensorflow


@pytest.mark.slow
def test_a_row_for_memory_and_one_for_each_size(tmp_path, monkeypatch):
    monkeypatch.setattr(input_speed, "_ROW_GROUP", 2048)
    memory, files = input_speed.measure([0.001], steps=2, pairs=1, folder=tmp_path)
    assert (memory["source"], files["source"]) == ("memory", "parquet 0.001 GB")
    assert memory["ratio"] == 1.0 and files["ratio"] > 0
    assert files["rows"] % 2048 == 0 and files["rows"] >= 2048
    assert files["bound_mbytes"] > 100 and files["peak_mbytes"] >= 0
    written = sum(path.stat().st_size for path in (tmp_path / "0.001GB").iterdir())
    assert 1e6 <= written < 2e6


def test_files_are_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(input_speed, "_ROW_GROUP", 2048)
    rows = input_speed.write_files(tmp_path / "files", 0.001)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "files").iterdir()}
    assert input_speed.write_files(tmp_path / "files", 0.001) == rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "files").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "files"]
