"""CONTRIBUTING.md's recipes are followed as they stand: their files and lines, all in one copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("mtl_zoo", "setup.cfg", "CONTRIBUTING.md", "CHANGELOG.md", "tests")
# By the heading of a recipe: what its contract calls the toy that the recipe adds, and how many of its tests are run.
RECIPES = {
    "Adding a model": ("tests/contract/test_models.py", "toy", 5),
    "Adding a kind of feature": ("tests/contract/test_features.py", "text_length", 8),
    "Adding a task kind": ("tests/contract/test_tasks.py", "toy", 7),
    "Adding a training step": ("tests/contract/test_steps.py", "signed", 5),
    "Adding an export format": ("tests/contract/test_formats.py", "toy", 12),
    "Adding a data set": ("tests/contract/test_datasets.py", "toy", 4),
}
# Of a model's contract; the rest costs the same for every model, and is known to pass for others.
OF_MODELS = "named_logits or config_makes or gets_a_gradient or private_parts or typo"
STRUCTURE = "two_files or packaged or one_way or what_kind"


def blocks_of(heading: str) -> dict[str, str]:
    """The blocks of Python under a heading of CONTRIBUTING.md, by the file that the sentence before each names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert section, f"CONTRIBUTING.md has no heading {heading!r}"
    block = r"`([\w/.]+\.py)`:\n+```python\n(.*?)^```"
    return dict(re.findall(block, section.group(1), flags=re.MULTILINE | re.DOTALL))


@pytest.mark.tensorflow
def test_each_recipe_makes_what_passes_its_contract(tmp_path):
    skipped = shutil.ignore_patterns("__pycache__", "data")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    tests, chosen, wanted = [], [], 1
    for heading, (contract, toy, count) in RECIPES.items():
        blocks = blocks_of(heading)
        assert len(blocks) >= 2, f"{heading!r} shows {sorted(blocks)}: a file, its test and a line are wanted"
        for name, block in blocks.items():
            with (tmp_path / name).open("a", encoding="utf-8") as file:
                file.write(f"\n{block}" if (ROOT / name).exists() else block)
        own = [name for name in blocks if name.startswith("tests/")]
        tests += [contract, *own]
        stem = Path(contract).stem
        narrowed = f" and ({OF_MODELS})" if stem == "test_models" else ""
        chosen += [f"({stem} and {toy}{narrowed})", *(Path(name).stem for name in own)]
        wanted += count
    (tmp_path / "tests" / "test_copy.py").write_text(
        f"def test_it_is_the_copy():\n    import mtl_zoo\n\n    assert mtl_zoo.__file__.startswith({str(tmp_path)!r})\n"
    )
    chosen += ["test_copy", f"(test_structure and ({STRUCTURE}))"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests),
            *("tests/test_copy.py", "tests/test_structure.py", "-k", " or ".join(chosen)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed >= wanted, done.stdout[-3000:]
