"""CONTRIBUTING.md's recipes are followed as they stand: new files and one line each, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("mtl_zoo", "setup.cfg", "CONTRIBUTING.md", "tests/toys.py", "tests/conftest.py", "tests/test_structure.py")
COPIED += ("tests/contract/test_models.py", "tests/contract/test_formats.py", "tests/models", "tests/serving")
# By the heading of a recipe: the files that its blocks of Python are, the last of which gets a line more.
RECIPES = {
    "Adding a model": ("mtl_zoo/models/toy.py", "tests/models/test_toy.py", "mtl_zoo/models/__init__.py"),
    "Adding an export format": (
        "mtl_zoo/serving/formats/toy.py",
        "tests/serving/test_toy.py",
        "mtl_zoo/serving/formats/__init__.py",
    ),
}
# Of a model's contract; the rest costs the same for every model, and is known to pass for others.
MODELS = "test_models and (named_logits or config or gradient or private or typo)"
CHOSEN = f"(toy and (({MODELS}) or test_formats)) or test_toy or model_is_two_files or format_is_two_files"
# The contract's five of a model and eight of a format, their own tests, that it is the copy, and the structure's two.
PASSED = 5 + 8 + 2 + 1 + 2


def python_blocks(heading: str = "Adding a model") -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.tensorflow
def test_two_files_and_one_line_are_enough(tmp_path):
    for name in COPIED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    for heading, files in RECIPES.items():
        for name, block in zip(files, python_blocks(heading), strict=True):
            with (tmp_path / name).open("a", encoding="utf-8") as file:
                file.write(block)
    with (tmp_path / "tests" / "models" / "test_toy.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef test_it_is_the_copy():\n    import mtl_zoo\n\n")
        file.write(f"    assert mtl_zoo.__file__.startswith({str(tmp_path)!r})\n")

    tests = [
        path for path in COPIED if path.startswith("tests/") and path not in ("tests/toys.py", "tests/conftest.py")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", CHOSEN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed >= PASSED, done.stdout
