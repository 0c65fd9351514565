"""The comparison of `fit` from files with `fit` from memory, on files of a few rows."""

import pytest

from mtl_zoo.benchmark import input_speed

pytestmark = pytest.mark.tensorflow


def test_a_row_for_memory_and_one_for_each_size(tmp_path, monkeypatch):
    monkeypatch.setattr(input_speed, "_ROW_GROUP", 2048)
    table = input_speed.measure_input([0.001], steps=2, pairs=1, folder=tmp_path)
    assert list(table["source"]) == ["memory", "parquet 0.001 GB"]
    memory, files = table.to_dict("records")
    assert memory["ratio"] == 1.0 and files["ratio"] > 0
    assert files["rows"] % 2048 == 0 and files["rows"] >= 2048
    assert files["bound_mbytes"] > 100 and files["peak_mbytes"] >= 0
    written = sum(path.stat().st_size for path in (tmp_path / "0.001GB").iterdir())
    assert 1e6 <= written < 2e6


def test_no_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`sizes` must hold at least one size"):
        input_speed.measure_input([], folder=tmp_path)


def test_files_are_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(input_speed, "_ROW_GROUP", 2048)
    rows = input_speed.write_files(tmp_path / "files", 0.001)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "files").iterdir()}
    assert input_speed.write_files(tmp_path / "files", 0.001) == rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "files").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "files"]
