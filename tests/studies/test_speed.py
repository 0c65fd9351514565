"""Steps are timed part by part and against the first case; memory is measured in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import _cost, memory, speed
from benchmarks.studies._steps import Case, Timed

pytestmark = pytest.mark.tensorflow

SMALL = ["--models", "shared_bottom", "--features", "2", "--numerics", "1", "--batch", "16", "--steps", "1"]
PARTS = ["input_ms", "embedding_ms", "forward_ms", "step_ms"]


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr(speed, "ceilings", lambda: _cost.ceilings(seconds=0.01))
    monkeypatch.setattr("benchmarks.studies._steps._INPUT_ROWS", 1000)


@pytest.mark.slow
def test_cases_are_timed_in_turn_against_the_first(tmp_path):
    out = tmp_path / "out" / "speed.csv"
    more = ["--vocabulary", "10", "1000", "--optimizers", "auto", "adam", "--set", "bottom_units=4", "--rounds", "2"]
    assert speed.main([*SMALL, *more, "--out", str(out), "--plot", str(tmp_path / "steps.png")]) == 0
    table = pd.read_csv(out)
    assert list(table["vocabulary"]) == [10, 1000] * 2 and list(table["optimizer"]) == ["auto"] * 2 + ["adam"] * 2
    assert table["ratio"][0] == 1.0 and table["bound"][0] == 1.5 and table["within_bound"][0]
    assert (table[PARTS] > 0).all(axis=None) and (table["matmul_share"] > 0).all()
    assert json.loads(table["hyperparameters"][0]) == {"bottom_units": 4}
    # A step by row does the same work whatever the vocabulary; Keras' Adam walks the table.
    assert table["step_mbytes"][0] == table["step_mbytes"][1] < table["step_mbytes"][3]
    ratios = [table[column][3] / table[column][0] for column in ("step_mbytes", "step_gflops")]
    assert table["bound"][3] == pytest.approx(1.5 * max(ratios), rel=0.1)
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_parts_grow_and_the_cost_is_that_of_a_step():
    timed = Timed(Case("shared_bottom", 10, batch=8, features=2, numerics=1, steps_per_execution=3))
    assert list(timed.parts) == ["input", "embedding", "forward", "gradients", "step"]
    before = [np.array(weight) for weight in timed.model.get_weights()]
    timed.parts["gradients"](1)
    assert all(np.array_equal(*pair) for pair in zip(timed.model.get_weights(), before, strict=True))
    assert timed.parts["step"](1) > 0
    assert not all(np.array_equal(*pair) for pair in zip(timed.model.get_weights(), before, strict=True))
    kernels = sum(int(np.prod(v.shape)) for v in timed.model.trainable_variables if v.path.endswith("kernel"))
    assert timed.cost().matmul_flops == 6 * 8 * kernels


def test_what_is_drawn():
    case = Case("esm2", 5, features=3, numerics=2, num_tasks=4)
    inputs, labels = case.draw(1000)
    assert list(inputs) == ["id_0", "id_1", "id_2", "number_0", "number_1"]
    assert set(np.unique(inputs["id_1"])) == set(range(2, 7))
    assert list(labels) == ["click", "conversion", "cart", "task_3"]
    assert labels["click"].mean() == pytest.approx(0.2, abs=0.05)
    assert not np.array_equal(inputs["id_0"], case.draw(1000, seed=1)[0]["id_0"])
    for sizes in ({"batch": 9, "replicas": 2}, {"batch": 8, "replicas": 2, "steps_per_execution": 2}):
        with pytest.raises(ValueError, match="`batch` must be a multiple of `replicas`"):
            Case("mmoe", 10, **sizes)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["star", "mose", "esm2"])
def test_a_model_gets_what_it_needs(model):
    timed = Timed(Case(model, 10, batch=8, features=2, numerics=1))
    assert timed.parts["step"](1) > 0 and timed.cost().flops > 0


def test_memory_of_a_case():
    found = memory.memory_of(Case("shared_bottom", 50_000, batch=16, features=2, numerics=1), 2)
    assert found["tables_mb"] == pytest.approx(2 * 50_002 * 16 * 4 / 1e6, abs=0.1) and found["slots"] == 2.0
    assert found["start_mb"] <= found["built_mb"] <= found["peak_mb"] and found["within_bound"]
    assert found["bound_mb"] == pytest.approx(1000 + 3 * found["tables_mb"], abs=1)


def test_memory_that_a_call_takes_and_gives_back_is_seen():
    found = memory.transient_mb(lambda: np.ones(10_000_000).sum())
    if np.isnan(found):
        pytest.skip("needs Linux")
    assert 70 <= found <= 100
    kept = np.ones(10_000_000)
    assert memory.transient_mb(lambda: None) < 10 and len(kept)


@pytest.mark.slow
def test_memory_in_a_process_of_its_own(tmp_path):
    out = tmp_path / "memory.csv"
    assert memory.main([*SMALL, "--vocabulary", "10", "100000", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert list(table["vocabulary"]) == [10, 100_000] and table["within_bound"].all()
    np.testing.assert_allclose(table["over_start_mb"], table["peak_mb"] - table["start_mb"], atol=0.11)


@pytest.mark.slow
def test_two_replicas(tmp_path):
    out = tmp_path / "two.csv"
    command = [sys.executable, "-m", "benchmarks.studies.speed", *SMALL, "--vocabulary", "10", "--mirrored", "2"]
    command += ["--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(out)
    assert table["replicas"][0] == 2 and (table[PARTS] > 0).all(axis=None) and table["step_mbytes"][0] > 0
