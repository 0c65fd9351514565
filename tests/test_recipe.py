"""CONTRIBUTING.md's recipe for a model is followed as it stands: two new files and one line, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("mtl_zoo", "setup.cfg", "CONTRIBUTING.md", "tests/toys.py", "tests/conftest.py")
COPIED += ("tests/contract/test_models.py", "tests/contract/test_tasks.py", "tests/models", "tests/test_structure.py")
# The rest of the contract costs the same for every model, and is known to pass for others.
CONTRACT = "toy and test_models and (named_logits or config or gradient or private or typo)"


def python_blocks(heading: str = "Adding a model") -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def copy_tree(tmp_path):
    for name in COPIED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


def run(tmp_path, *arguments) -> tuple[int, str]:
    """How many tests of the copy passed, and what was written."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.search(r"(\d+) passed", done.stdout).group(1)), done.stdout


@pytest.mark.tensorflow
def test_a_file_and_a_line_make_a_task_kind(tmp_path):
    copy_tree(tmp_path)
    kind, line = python_blocks("Adding a task kind")
    (tmp_path / "mtl_zoo" / "tasks" / "toy.py").write_text(kind, encoding="utf-8")
    with (tmp_path / "mtl_zoo" / "tasks" / "__init__.py").open("a", encoding="utf-8") as tasks:
        tasks.write(line)
    passed, written = run(tmp_path, "tests/contract/test_tasks.py", "tests/test_structure.py", "-k", "toy")
    # The contract's seven, and those of the structure that look at each file.
    assert passed >= 10, written


@pytest.mark.tensorflow
def test_two_files_and_one_line_make_a_model(tmp_path):
    copy_tree(tmp_path)
    model, test, line = python_blocks()
    (tmp_path / "mtl_zoo" / "models" / "toy.py").write_text(model, encoding="utf-8")
    here = (
        f"def test_it_is_the_copy():\n    import mtl_zoo\n\n    assert mtl_zoo.__file__.startswith({str(tmp_path)!r})\n"
    )
    (tmp_path / "tests" / "models" / "test_toy.py").write_text(f"{test}\n\n{here}", encoding="utf-8")
    with (tmp_path / "mtl_zoo" / "models" / "__init__.py").open("a", encoding="utf-8") as models:
        models.write(line)

    files = ["tests/contract/test_models.py", "tests/models/test_toy.py", "tests/test_structure.py"]
    passed, written = run(tmp_path, *files, "-k", f"({CONTRACT}) or test_toy or model_is_two_files")
    # The contract's five, the model's own two, the structure's one.
    assert passed >= 8, written
