"""Each setting runs once, in a process of its own, since a process joins one cluster; the tests read what it found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow
CASE = Path(__file__).parents[1] / "servers_case.py"
ROWS, STEPS = 150, 10


def run_case(folder, case):
    done = subprocess.run(
        [sys.executable, str(CASE), str(folder), case],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run_case(tmp_path_factory.mktemp("one"), "one")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run_case(tmp_path_factory.mktemp("two"), "two")


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return run_case(tmp_path_factory.mktemp("more"), "more")


@pytest.mark.extended
def test_one_worker_finds_what_one_process_finds(one):
    assert one["gap_lazy"] <= 1e-5
    assert one["logs_lazy"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["split", "pcgrad"])
def test_one_worker_finds_the_same_with_other_optimizers_and_methods(more, name):
    assert more[f"gap_{name}"] <= 1e-5
    assert more[f"logs_{name}"] <= 1e-5


def test_a_new_trainer_goes_on_from_the_last_checkpoint(one):
    assert one["resumed_from"][:3] == [1, 2, 12]
    assert one["steps_resumed"] == STEPS - 2
    assert one["rows_resumed"] == [ROWS]
    assert one["gap_resumed"] <= 1e-5
    assert one["logs_resumed"] <= 1e-5


@pytest.mark.extended
def test_tables_are_split_evenly_over_the_servers(two):
    assert sorted(two["table_servers"]) == ["0", "0", "1", "1"]
    assert max(two["held"]) <= 1.5 * sum(two["held"]) / 2  # toy tables are hardly larger than the rest


def test_every_row_is_trained_once_an_epoch(two):
    assert two["rows"] == [ROWS] * 12
    assert two["steps"] == 12 * STEPS


def test_two_workers_lower_the_losses(two):
    assert two["losses"][-1] < 0.9 * two["losses"][0]
    assert {"loss", "click_loss", "conversion_loss", "like_loss", "click_auc"} <= set(two["names"])


def test_validation_goes_on_beside_training_and_ends_with_the_last_weights(two):
    steps = [step for _, step, _ in two["evaluations"]]
    assert steps[0] == 20 and steps[-1] == 12 * STEPS
    assert steps == sorted(steps)
    assert two["last_evaluation_apart"] == 0


def test_the_model_is_saved_and_loaded_as_any_other(two):
    assert two["saved_apart"] <= 1e-6


@pytest.mark.parametrize(
    "what, text",
    [
        ("fit", "`fit` and `evaluate` of a model on parameter servers are those of its ParameterServerTrainer"),
        ("evaluate", "`fit` and `evaluate` of a model on parameter servers are those of its ParameterServerTrainer"),
        ("data", "`x` must be a dict of arrays, a table or a tf.data.Dataset. Received: x=<"),
        ("jit", "`jit_compile` must be False under a tf.distribute strategy"),
        ("outside", "`make_model` must make the model when it is called"),
        ("no_model", "`make_model` must give a model of the zoo. Received: NoneType"),
        ("eager", "`run_eagerly` must be False and `steps_per_execution` 1 with parameter servers"),
        ("several", "Received: run_eagerly=False, steps_per_execution=2"),
        ("accumulated", "`gradient_accumulation_steps` must be None with parameter servers"),
        ("ahead", "`ahead` must be"),
        ("diverged", "FloatingPointError: The loss of "),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(two, what, text):
    assert text in two[what]


def test_callbacks_are_told_of_a_training_that_fails(two):
    assert two["told"] == ["FloatingPointError"]


def test_a_cluster_without_servers_is_refused(monkeypatch):
    from mtl_zoo.training import ParameterServerTrainer

    cluster = {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}}))
    with pytest.raises(ValueError, match=r"`TF_CONFIG` must describe a cluster of one chief.*Received: .*'chief'"):
        ParameterServerTrainer(lambda: None)
