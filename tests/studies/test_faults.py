"""Kills of processes: three real ones, and how the benchmark draws, judges and keeps them."""

import numpy as np
import pytest

from benchmarks.studies import faults
from benchmarks.studies.faults import EVERY_STEPS, SETTINGS, Kill, Setting, draw_kill

pytestmark = pytest.mark.tensorflow
# 26 steps.
SMALL = {"workers": Setting(2, 0, rows=205, epochs=2), "servers": Setting(2, 2, rows=405, epochs=1)}
GOOD = {"killed": True, "attempts": 2, "steps": 252, "again": EVERY_STEPS, "untrained": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("workers", Kill("worker-1", "step", 12, 0.0)),
        ("workers", Kill("worker-0", "checkpoint", 10, 0.0)),
        ("servers", Kill("ps-1", "step", 12, 0.0)),
    ],
    ids=["worker", "chief", "server"],
)
def test_training_survives_a_kill(tmp_path, name, kill):
    import tensorflow as tf

    setting = SMALL[name]
    row = faults.run_case(setting, kill, tmp_path / "killed")
    if name == "workers":
        alone = faults.train(setting, tmp_path / "alone", tf.distribute.get_strategy())
        row |= {"difference": faults.difference(alone["weights"], row["weights"])[0], "allowed": 1e-5}
    assert not faults.faults_of(setting, row), row


@pytest.mark.parametrize(
    ("name", "role", "processes"),
    [
        ("workers", "worker", {"worker-1"}),
        ("workers", "chief", {"worker-0"}),
        ("servers", "worker", {"worker-0", "worker-1"}),
        ("servers", "chief", {"chief-0"}),
        ("servers", "server", {"ps-0", "ps-1"}),
    ],
)
def test_kills_fall_on_every_moment_of_the_role_that_was_asked_for(name, role, processes):
    setting = SETTINGS[name]
    kills = [draw_kill(setting, role, number) for number in range(40)]
    assert kills == [draw_kill(setting, role, number) for number in range(40)]
    assert {kill.process for kill in kills} == processes
    assert {kill.moment for kill in kills} == {"start", "step", "checkpoint"}
    steps = [kill.at for kill in kills if kill.moment != "start"]
    assert min(steps) >= 1 and max(steps) <= setting.steps - 3 * EVERY_STEPS
    assert not [kill for kill in kills if kill.moment == "checkpoint" and kill.at % EVERY_STEPS]
    assert {kill.at for kill in kills if kill.moment == "start"} == {0}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"killed": False}, "nothing was killed"),
        ({"attempts": 1}, "1 attempts"),
        ({"steps": 251}, "251 steps of 252"),
        ({"steps": 253}, "253 steps of 252"),
        ({"again": EVERY_STEPS + 1}, "6 steps again"),
        ({"untrained": 2}, "2 rows untrained"),
        ({"difference": 2e-5, "allowed": 1e-5}, "difference 2e-05"),
        ({"difference": float("nan"), "allowed": 1e-5}, "difference nan"),
    ],
)
def test_what_counts_as_survived(change, fault):
    assert faults.faults_of(SETTINGS["workers"], GOOD | change) == ([] if fault is None else [fault])


def test_steps_in_flight_may_be_done_again_on_servers():
    setting = SETTINGS["servers"]
    row = GOOD | {"steps": setting.steps + setting.in_flight, "again": EVERY_STEPS + setting.in_flight}
    assert setting.in_flight == 4
    assert not faults.faults_of(setting, row)
    assert faults.faults_of(setting, row | {"again": row["again"] + 1}) == ["10 steps again"]


def test_steps_that_were_noted_twice_are_counted():
    assert faults.steps_again("step 1\nafter 1\nstep 2\nstep 3\nstep 2\nafter 2\nstep 3\nafter 3\n") == 2
    assert faults.steps_again("") == 0


def test_rows_are_kept_as_they_come_and_a_second_call_goes_on(tmp_path, monkeypatch):
    cases = []

    def run_case(setting, kill, folder, timeout):
        cases.append((setting, kill))
        folder.mkdir(parents=True)
        if len(cases) == 3:
            raise RuntimeError("worker-0: exit code 1")
        gap = 0.5 if len(cases) == 4 else 0.0
        return GOOD | {"loss": 0.5, "seconds": 1.0, "weights": {"weight 0": np.array([1.0, 2.0 + gap])}}

    monkeypatch.setattr(faults, "run_case", run_case)
    out = tmp_path / "rows.csv"
    assert len(faults.run_faults(["worker"], 1, out)) == 2
    table = faults.run_faults(["worker", "chief"], 2, out)
    expected = [("worker", 0), ("chief", 0), ("worker", 1), ("chief", 1)]
    workers = SETTINGS["workers"]
    assert cases == [(workers, None), *((workers, draw_kill(workers, *which)) for which in expected)]
    assert list(table["role"]) == ["none", "worker", "chief", "worker", "chief"]
    assert list(table["survived"].astype(str)) == ["", "True", "False", "False", "True"]
    assert table["error"][2] == "worker-0: exit code 1"
    assert table["error"][3] == "difference 0.25"
    weights = out.with_suffix(".runs") / "workers-0.npz"
    assert set(table["commit"]) != {""} and weights.exists()
    # The rows without the folder: the run that was left alone is made again, and has no second row.
    weights.unlink()
    assert len(faults.run_faults(["worker"], 2, out)) == 5
    assert weights.exists() and cases[-1] == (workers, None)


def test_losses_on_servers_must_lie_where_those_of_runs_left_alone_do(tmp_path, monkeypatch):
    losses = iter([0.50, 0.51, 0.49, 0.50, 0.505, 0.495, 0.52, 0.60])

    def run_case(setting, kill, folder, timeout):
        folder.mkdir(parents=True)
        return GOOD | {"steps": setting.steps, "loss": next(losses), "weights": {}}

    monkeypatch.setattr(faults, "run_case", run_case)
    table = faults.run_faults(["server"], 2, tmp_path / "rows.csv")
    assert list(table["role"]) == ["none"] * 6 + ["server"] * 2
    assert list(table["survived"].astype(str))[6:] == ["True", "False"]
    # 6.87 of the t distribution with 5 degrees of freedom, and one more run like the others.
    spread = np.std([0.50, 0.51, 0.49, 0.50, 0.505, 0.495], ddof=1)
    assert float(table["allowed"][7]) == pytest.approx(6.869 * spread * np.sqrt(7 / 6), rel=1e-3)


def test_the_command_prints_the_count_and_fails_with_a_kill_that_was_not_survived(tmp_path, monkeypatch, capsys):
    rows = faults.pd.DataFrame(
        [
            {"setting": "workers", "role": "none", "number": 0, "survived": "", "error": ""},
            {"setting": "workers", "role": "chief", "number": 0, "survived": True, "error": ""},
            {"setting": "workers", "role": "chief", "number": 1, "survived": False, "error": "1 attempts"},
        ]
    )
    monkeypatch.setattr(faults, "run_faults", lambda *_, **__: rows)
    arguments = ["--kill", "chief", "--times", "2", "--out", str(tmp_path / "rows.csv")]
    assert faults.main(arguments) == 1
    text = capsys.readouterr().out
    assert "workers: 1 of 2 kills of a chief survived" in text and "1 attempts" in text
