import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.benchmark import memory
from mtl_zoo.benchmark.memory import measure_memory
from mtl_zoo.benchmark.speed import SpeedCase, ceilings, measure, speed_main
from mtl_zoo.benchmark.speed_case import TimedCase, draw_rows
from mtl_zoo.benchmark.speed_plot import draw_steps

pytestmark = pytest.mark.tensorflow

SMALL = ["--features", "2", "--numerics", "1", "--batch", "16", "--rounds", "2", "--steps", "1"]
PARTS = ["input_ms", "embedding_ms", "forward_ms", "step_ms"]


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr("mtl_zoo.benchmark.speed.ceilings", lambda: ceilings(seconds=0.01))
    monkeypatch.setattr("mtl_zoo.benchmark.speed_case._INPUT_ROWS", 1000)


def run(folder, *arguments):
    out = folder / "out" / "speed.csv"
    assert speed_main(["--models", "shared_bottom", *SMALL, *arguments, "--out", str(out)]) == 0
    return pd.read_csv(out)


def test_cases_are_timed_in_turn_against_the_first(tmp_path):
    more = ["--vocabulary", "10", "1000", "--optimizers", "auto", "adam", "--set", "bottom_units=4"]
    table = run(tmp_path, *more, "--plot", str(tmp_path / "steps.png"))
    assert list(zip(table["vocabulary"], table["optimizer"], strict=True)) == [
        (10, "auto"), (1000, "auto"), (10, "adam"), (1000, "adam"),
    ]  # fmt: skip
    assert table["ratio"][0] == 1.0 and table["bound"][0] == 1.5 and table["within_bound"][0]
    assert (table[PARTS] > 0).all(axis=None) and (table["matmul_share"] > 0).all()
    assert json.loads(table["hyperparameters"][0]) == {"bottom_units": 4}
    # A step by row does the same work whatever the vocabulary; Keras' Adam walks the table.
    assert table["step_mbytes"][0] == table["step_mbytes"][1] < table["step_mbytes"][3]
    bytes_ratio = table["step_mbytes"][3] / table["step_mbytes"][0]
    flops_ratio = table["step_gflops"][3] / table["step_gflops"][0]
    assert table["bound"][3] == pytest.approx(1.5 * max(bytes_ratio, flops_ratio), rel=0.1)
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_several_steps_at_a_call(tmp_path):
    table = run(tmp_path, "--vocabulary", "10", "--steps-per-execution", "3")
    assert table["steps_per_execution"][0] == 3 and (table[PARTS] > 0).all(axis=None)


def test_what_is_drawn():
    case = SpeedCase("mmoe", 5, features=3, numerics=2)
    inputs, labels = draw_rows(case, 1000)
    assert list(inputs) == ["id_0", "id_1", "id_2", "number_0", "number_1"]
    assert set(np.unique(inputs["id_1"])) == set(range(2, 7))
    assert labels["click"].mean() == pytest.approx(0.2, abs=0.05)
    assert not np.array_equal(inputs["id_0"], draw_rows(case, 1000, seed=1)[0]["id_0"])


def test_parts_grow_and_the_cost_is_that_of_a_step():
    timed = TimedCase(SpeedCase("shared_bottom", 10, batch=8, features=2, numerics=1))
    assert list(timed.parts) == ["input", "embedding", "forward", "gradients", "step"]
    before = [np.array(weight) for weight in timed.model.get_weights()]
    timed.parts["gradients"](1)
    assert all(np.array_equal(*pair) for pair in zip(timed.model.get_weights(), before, strict=True))
    timed.parts["step"](1)
    assert not all(np.array_equal(*pair) for pair in zip(timed.model.get_weights(), before, strict=True))
    kernels = sum(int(np.prod(v.shape)) for v in timed.model.trainable_variables if v.path.endswith("kernel"))
    assert timed.cost().matmul_flops == 6 * 8 * kernels


def test_ceilings_are_positive():
    assert all(value > 0 for value in ceilings(seconds=0.01).values())


def test_the_picture_names_what_differs(tmp_path):
    figures = {"embedding_ms": 1.0, "forward_ms": 2.0, "backward_ms": 3.0, "update_ms": 1.0, "input_ms": 0.5}
    one = {**figures, "model": "mmoe", "optimizer": "auto", "batch": 16, "features": 2, "replicas": 1, "ratio": 1.0}
    table = pd.DataFrame([{**one, "steps_per_execution": 1, "vocabulary": v} for v in (10, 10_000)])
    assert draw_steps(table, tmp_path / "a" / "steps.png").stat().st_size > 1000
    assert draw_steps(table[:1], tmp_path / "one.png").exists()


def test_memory_of_a_case():
    case = SpeedCase("shared_bottom", 50_000, batch=16, features=2, numerics=1)
    found = memory._measured(case, 2)
    assert found["tables_mb"] == pytest.approx(2 * 50_002 * 16 * 4 / 1e6, abs=0.1) and found["slots"] == 2.0
    assert found["start_mb"] <= found["built_mb"] <= found["peak_mb"]


@pytest.mark.slow
def test_memory_in_a_process_of_its_own(tmp_path):
    table = run(tmp_path, "--vocabulary", "10", "100000", "--memory")
    assert list(table["vocabulary"]) == [10, 100_000] and table["within_bound"].all()
    np.testing.assert_allclose(table["over_start_mb"], table["peak_mb"] - table["start_mb"], atol=0.1)
    np.testing.assert_allclose(table["bound_mb"], 1000 + 3 * table["tables_mb"], atol=1)
    with pytest.raises(RuntimeError, match=r"The process of SpeedCase\(model='none'.*ended with 1"):
        measure_memory([SpeedCase("none", 10)])


@pytest.mark.slow
def test_two_replicas(tmp_path):
    out = str(tmp_path / "two.csv")
    arguments = ["--models", "shared_bottom", *SMALL, "--vocabulary", "10", "--mirrored", "2", "--out", out]
    code = "import sys; from mtl_zoo.benchmark.speed import speed_main; sys.exit(speed_main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(out)
    assert table["replicas"][0] == 2 and (table[PARTS] > 0).all(axis=None) and table["step_mbytes"][0] > 0


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match="`cases` must hold at least one case"):
        measure([])
    with pytest.raises(ValueError, match="`vocabulary` must be a whole number >= 1"):
        SpeedCase("mmoe", 0)
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1 with several replicas"):
        SpeedCase("mmoe", 10, replicas=2, steps_per_execution=2)
    with pytest.raises(ValueError, match="`batch` must be a multiple of `replicas`. Received: batch=9, replicas=2"):
        SpeedCase("mmoe", 10, batch=9, replicas=2)
    with pytest.raises(ValueError, match="`cases` must have one replica to measure their memory"):
        measure_memory([SpeedCase("mmoe", 10, replicas=2)])
    import tensorflow as tf

    tf.constant(0)  # starts TensorFlow
    with pytest.raises(ValueError, match="`--mirrored` must be asked for before TensorFlow starts"):
        speed_main(["--mirrored", "2", "--out", str(tmp_path / "speed.csv")])
    with pytest.raises(SystemExit):
        speed_main(["--mirrored", "2", "--memory", "--out", str(tmp_path / "speed.csv")])
    assert "--memory goes with neither --plot nor --mirrored" in capsys.readouterr().err
    monkeypatch.setattr("mtl_zoo._backend.is_tensorflow", lambda: False)
    with pytest.raises(ValueError, match="`measure` needs the TensorFlow backend"):
        measure([SpeedCase("mmoe", 10)])


@pytest.mark.parametrize("model", ["star", "mose", "esm2"])
def test_a_model_gets_what_it_needs(model):
    timed = TimedCase(SpeedCase(model, 10, batch=8, features=2, numerics=1))
    assert timed.parts["step"](1) > 0
    assert timed.cost().flops > 0
