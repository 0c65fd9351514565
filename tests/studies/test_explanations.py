import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import explanations
from benchmarks.studies.explanations import FIELDS, GROUPS, true_effects


def world(rows=20_000):
    """Fields of two values whose effects differ by 0.1, 0.2, ..., a domain, a number, and their logit."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(2, 4, rows) for name in (*FIELDS, "domain")}
    inputs["number"] = rng.normal(size=rows).astype("float32")
    effects = {name: 0.1 * (i + 1) * (inputs[name] - 2.5) for i, name in enumerate((*FIELDS, "domain"))}
    effects["number"] = -0.5 * inputs["number"]
    return inputs, effects, sum(effects.values()) - 3


def test_true_effects_are_those_of_the_logit():
    inputs, effects, logit = world()
    for name, found in true_effects(inputs, logit).items():
        np.testing.assert_allclose(found, effects[name] - effects[name].mean(), atol=1e-3)


def test_parts_that_are_the_effects_correlate_with_them():
    from scipy.stats import spearmanr

    inputs, effects, _ = world(2000)
    effects |= {"history": np.zeros(2000)}
    parts = pd.DataFrame({name: 2 * values for name, values in effects.items()})
    strength = [np.var(sum(effects[name] for name in members)) for members in GROUPS.values()]
    importance = pd.DataFrame({"feature": list(GROUPS), "importance": strength})
    for ours, true in explanations._compared(parts, effects, inputs, importance).values():
        assert spearmanr(ours, true)[0] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_command_writes_rows(tmp_path):
    out = tmp_path / "explanations.csv"
    options = ["--seeds", "1", "--rows", "2000", "--epochs", "1", "--gap-rows", "1000", "--explained", "4"]
    assert explanations.main([*options, "--models", "shared_bottom", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert set(table["part"]) == {"gaps", "truth", "ceiling"}
    assert (table[table["part"] == "gaps"]["incomplete"] == 0).all()
    assert len(table) == 4 + 2 * 2 * 3 + 1
