"""CONTRIBUTING.md's recipes are followed as they stand, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("mtl_zoo", "setup.cfg", "CONTRIBUTING.md", "tests/toys.py", "tests/conftest.py")
COPIED += (
    "tests/contract/test_models.py",
    "tests/contract/test_datasets.py",
    "tests/models",
    "tests/test_structure.py",
)
# The rest of the contract costs the same for every model, and is known to pass for others.
CONTRACT = "toy and test_models and (named_logits or config or gradient or private or typo)"


def python_blocks(section: str) -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.tensorflow
def test_the_recipes_make_a_model_and_a_data_set(tmp_path):
    for name in COPIED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    model, test, line = python_blocks("Adding a model")
    (tmp_path / "mtl_zoo" / "models" / "toy.py").write_text(model, encoding="utf-8")
    here = (
        f"def test_it_is_the_copy():\n    import mtl_zoo\n\n    assert mtl_zoo.__file__.startswith({str(tmp_path)!r})\n"
    )
    (tmp_path / "tests" / "models" / "test_toy.py").write_text(f"{test}\n\n{here}", encoding="utf-8")
    with (tmp_path / "mtl_zoo" / "models" / "__init__.py").open("a", encoding="utf-8") as models:
        models.write(line)
    dataset, line = python_blocks("Adding a data set")
    (tmp_path / "mtl_zoo" / "datasets" / "toy.py").write_text(dataset, encoding="utf-8")
    with (tmp_path / "mtl_zoo" / "datasets" / "__init__.py").open("a", encoding="utf-8") as datasets:
        datasets.write(line)

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += [
        "tests/contract/test_models.py",
        "tests/contract/test_datasets.py",
        "tests/models/test_toy.py",
        "tests/test_structure.py",
        "-k",
    ]
    command += [f"({CONTRACT}) or test_toy or model_is_two_files or (test_datasets and toy)"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    # The contract's five, the model's own two, the structure's one, and the six of data sets.
    assert passed >= 14, done.stdout
