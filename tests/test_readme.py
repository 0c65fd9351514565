"""The README's Python runs as it stands, from top to bottom, on a table like the one that it describes."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from impressions import write_impressions

README = Path(__file__).parents[1] / "README.md"


def test_the_table_of_models_is_fresh():
    path = README.parent / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = README.read_text(encoding="utf-8")
    assert generate.readme_with_catalogue(text) == text, "run `python docs/generate.py`"


def test_ones_own_table_takes_few_lines():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (own,) = [block for block in blocks if "read_csv" in block]
    assert len([line for line in own.splitlines() if line.strip()]) < 25


@pytest.mark.tensorflow
def test_python_blocks_run(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert blocks, "README.md has no ```python block"
    monkeypatch.chdir(tmp_path)
    write_impressions(tmp_path / "impressions.csv")
    namespace: dict = {"__name__": "readme"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    served, scores = namespace["served"].score(namespace["row"]), namespace["scores"]
    for task in ("click", "conversion"):
        np.testing.assert_allclose(served[task].numpy(), scores[task][:3], atol=1e-6)
