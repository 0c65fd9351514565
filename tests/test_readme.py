"""The README's Python runs as it stands, from top to bottom, on a table like the one that it describes."""

import re
from pathlib import Path

import numpy as np
import pytest
from impressions import write_impressions

README = Path(__file__).parents[1] / "README.md"


def blocks_of(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_it_is_read_in_two_minutes():
    assert len(README.read_text(encoding="utf-8").split()) < 700


def test_links_lead_to_files():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def test_the_comparison_is_that_of_the_quick_start():
    # A slow test of tests/test_site.py runs it.
    quickstart = README.parent / "docs" / "quickstart.md"
    for language in ("yaml", "sh"):
        assert blocks_of(README, language)[-1] == blocks_of(quickstart, language)[0]


def test_ones_own_table_takes_few_lines():
    blocks = blocks_of(README, "python")
    (own,) = [block for block in blocks if "read_csv" in block]
    assert len([line for line in own.splitlines() if line.strip()]) < 25


@pytest.mark.tensorflow
def test_python_blocks_run(tmp_path, monkeypatch):
    import tensorflow as tf

    blocks = blocks_of(README, "python")
    assert blocks, "README.md has no ```python block"
    monkeypatch.chdir(tmp_path)
    write_impressions(tmp_path / "impressions.csv")
    namespace: dict = {"__name__": "readme"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    row = namespace["transform"].raw_arrays(namespace["test"].head(3))
    exported = tf.saved_model.load("exported")
    served = exported.score({name: tf.constant(values) for name, values in row.items()})
    scores = namespace["scores"]
    for task in ("click", "conversion"):
        np.testing.assert_allclose(served[task].numpy(), scores[task][:3], atol=1e-6)
