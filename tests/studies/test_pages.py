import pandas as pd
import pytest

from benchmarks.studies import pages


@pytest.mark.tensorflow
@pytest.mark.extended
def test_a_step_with_large_pages_is_timed_against_one_without(tmp_path):
    out = tmp_path / "pages.csv"
    command = ["--vocabulary", "50", "--rounds", "2", "--steps", "1", "--out", str(out)]
    assert pages.main(command) == 0 and pages.main(command) == 0
    (row,) = pd.read_csv(out).to_dict("records")
    assert row["vocabulary"] == 50 and row["mirrored"] == 1 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["huge_mb"] >= 0 and row["build_ratio"] > 0
