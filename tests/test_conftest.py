"""A CI run must not pass by skipping the tests of real files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What conftest.py asks of Keras; importing the real one, and TensorFlow with it, takes longer than all else here.
KERAS = """
from types import SimpleNamespace

backend = SimpleNamespace(backend=lambda: "tensorflow", clear_session=lambda: None)
utils = SimpleNamespace(set_random_seed=lambda seed: None)
"""
TESTS = """
import pytest

@pytest.mark.real_data
def test_reads_files(data_dir):
    assert data_dir.is_dir()

def test_skips_for_another_reason():
    pytest.skip("not today")
"""


@pytest.mark.parametrize(
    ("require", "summary"),
    [("0", "2 skipped"), ("1", "1 skipped, 1 error")],
    ids=["skip is fine", "skip is a failure"],
)
def test_missing_data_is_a_failure_where_required(tmp_path, require, summary):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "keras.py").write_text(KERAS)
    (tmp_path / "test_files.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    real_data: x\n")
    env = {
        name: value for name, value in os.environ.items() if name != "MTL_ZOO_DATA" and not name.startswith("PYTEST_")
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)],
        cwd=tmp_path,
        env={**env, "MTL_ZOO_REQUIRE_DATA": require},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert summary in run.stdout, run.stdout + run.stderr
    assert ("MTL_ZOO_DATA is not set" in run.stdout) is (require == "1")
