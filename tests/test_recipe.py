"""CONTRIBUTING.md's recipes for a model and for a kind of feature are followed as they stand, in a copy of the tree."""

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
    "tests/contract/test_features.py",
    "tests/models",
    "tests/test_structure.py",
)
COPIED += ("tests/feature_tables.py",)
# The rest of the contract costs the same for every model, and is known to pass for others.
CONTRACT = "toy and test_models and (named_logits or config or gradient or private or typo)"


def python_blocks() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.tensorflow
def test_two_files_and_one_line_make_a_model_or_a_kind_of_feature(tmp_path):
    for name in COPIED:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    model, test, line, feature, feature_test, feature_line = python_blocks()
    (tmp_path / "mtl_zoo" / "models" / "toy.py").write_text(model, encoding="utf-8")
    here = (
        f"def test_it_is_the_copy():\n    import mtl_zoo\n\n    assert mtl_zoo.__file__.startswith({str(tmp_path)!r})\n"
    )
    (tmp_path / "tests" / "models" / "test_toy.py").write_text(f"{test}\n\n{here}", encoding="utf-8")
    (tmp_path / "mtl_zoo" / "features" / "text_length.py").write_text(feature, encoding="utf-8")
    (tmp_path / "tests" / "features").mkdir()
    (tmp_path / "tests" / "features" / "test_text_length.py").write_text(feature_test, encoding="utf-8")
    for path, added in (("models/__init__.py", line), ("features/spec.py", feature_line)):
        with (tmp_path / "mtl_zoo" / path).open("a", encoding="utf-8") as file:
            file.write(added)

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["tests/contract/test_models.py", "tests/models/test_toy.py", "tests/test_structure.py"]
    command += ["tests/contract/test_features.py", "tests/features/test_text_length.py", "-k"]
    command += [f"({CONTRACT}) or test_toy or model_is_two_files or text_length"]
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
    # The contract's five, the model's own two, the structure's one; the feature's own one and some of its contract.
    assert passed >= 12, done.stdout
