"""Each tutorial runs from top to bottom, in a process and a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toys import sample_of

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
QUICK = ("01_your_own_table", "04_large_tables")


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", sample_of([path.stem for path in TUTORIALS], QUICK))
def test_a_tutorial_runs(name, tmp_path):
    tutorial = ROOT / "tutorials" / f"{name}.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(tutorial)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]


def test_they_are_numbered_and_name_what_comes_next():
    names = [path.name for path in TUTORIALS]
    assert [int(name[:2]) for name in names] == list(range(1, len(names) + 1))
    for path, after in zip(TUTORIALS, names[1:], strict=False):
        assert re.findall(r"# Next: .*?\(`(.*?)`\)", path.read_text(encoding="utf-8"), flags=re.DOTALL) == [after]


def test_their_readme_lists_them():
    table = (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.*?\.py)\)", table) == [path.name for path in TUTORIALS]


def test_files_that_they_name_are_there():
    for path in TUTORIALS:
        for name in re.findall(r"`((?:docs|benchmarks)/\S+?)`", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name} names {name}"
