import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.peers import speed
from benchmarks.peers.speed import PeerCase, contestants, measure, paired_ratios, rows_of_turn
from benchmarks.peers.speed_protocol import Data
from benchmarks.peers.speed_workers import Contestant, Worker, WorkerError

CASE = PeerCase(vocabulary=20, features=2, numerics=1, dim=2, batch=4, experts=2, expert_units=(4, 3), tower_units=(2,))
# A worker whose speed is one of its settings, so that every figure is known; its modes are ways to go wrong.
FAKE = """
import os, sys, time
from benchmarks.peers.speed_protocol import serve

class Session:
    parameters = 7

    def __init__(self, case, data, mode, settings):
        self.data, self.mode, self.rates = data, mode, settings["rates"]
        assert case["table_rows"] == case["vocabulary"] + 2

    def turn(self, rows):
        print("a library prints this")
        if self.mode == "die":
            print("out of memory", file=sys.stderr, flush=True)
            os._exit(3)
        if self.mode == "fail":
            raise KeyError("no such column")
        if self.mode == "sleep":
            time.sleep(60)
        inputs, labels = self.data.first(rows)
        assert {len(column) for column in (inputs | labels).values()} == {rows}
        return rows / (self.rates.pop(0) if len(self.rates) > 1 else self.rates[0]), 0.5

serve(lambda *arguments: Session(*arguments), ("numpy",))
"""


def fake(name, *rates, mode="fit", code=FAKE):
    """A contestant with a candidate for each list of rates, used up turn by turn; the last one stays."""
    return Contestant(name, mode, (sys.executable, "-c", code), tuple({"rates": list(each)} for each in rates))


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "arrays.npz", **CASE.arrays(40))
    return tmp_path / "arrays.npz"


def start(side, data, **options):
    return Worker(side, side.candidates[0], CASE.message(), data, **options)


def test_ratios_are_paired_by_round_and_the_fastest_settings_are_kept(capsys):
    # Three epochs of the probe, one of warm-up, three that count.
    ours = fake("ours", [10, 10, 10, 1, 100, 200, 300])
    theirs = fake("theirs", [20], [10, 30, 10, 1, 50, 50, 50], [25])
    table = measure([ours, theirs], CASE, pairs=3, rows=400, seconds=1000)
    assert list(table["framework"]) == ["ours", "theirs"]
    assert json.loads(table["ratios"][1]) == [2, 4, 6]
    assert (table["ratio"][1], table["ratio_low"][1], table["ratio_high"][1]) == (4, 2, 6)
    assert (table["ratio"][0], table["ratio_low"][0], table["ratio_high"][0]) == (1, 1, 1)
    assert list(table["examples_per_second"]) == [200, 50]
    assert json.loads(table["seconds"][1]) == [8, 8, 8]
    assert list(json.loads(table["probe"][1]).values()) == [20, 30, 25]
    assert json.loads(table["settings"][1]) == {"rates": [10, 30, 10, 1, 50, 50, 50]}
    assert list(table["parameters"]) == [7, 7] and list(table["loss"]) == [0.5, 0.5]
    assert set(json.loads(table["versions"][1])) == {"python", "numpy"}
    assert list(table["spread"]) == [3, 1]
    speed.show(table)
    shown = capsys.readouterr()
    assert "4.00 (2.00-6.00)" in shown.out
    # Ours varied and theirs did not: only ours is named.
    assert "ours fit: its slowest epoch took 3.00 times its fastest. The machine was not idle" in shown.err
    assert "theirs fit: its slowest" not in shown.err


def test_without_a_probe_the_first_settings_are_taken():
    table = measure([fake("ours", [10], [20])], CASE, pairs=1, rows=40, seconds=0, probe_batches=0)
    assert json.loads(table["settings"][0]) == {"rates": [10]}
    assert json.loads(table["probe"][0]) == {}
    assert table["rows"][0] == 40


def test_ratio_is_above_one_where_ours_is_faster():
    assert paired_ratios([30.0, 10.0], [10.0, 20.0]) == [3.0, 0.5]
    with pytest.raises(ValueError, match="shorter"):
        paired_ratios([30.0, 10.0], [10.0])


def test_a_turn_is_whole_batches_of_about_the_seconds():
    assert rows_of_turn(rate=1000, seconds=5, batch=100, most=100_000) == 5000
    assert rows_of_turn(rate=1000, seconds=5, batch=100, most=4250) == 4200
    assert rows_of_turn(rate=1, seconds=5, batch=100, most=100_000) == 800
    assert rows_of_turn(rate=1, seconds=0, batch=100, most=4250) == 4200


def test_the_data_are_the_same_every_time_and_in_range():
    first, second = CASE.arrays(40), CASE.arrays(40)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["ids"].min() >= 2 and first["ids"].max() < CASE.message()["table_rows"]
    inputs, labels = Data(first, CASE.tasks).first(3)
    assert list(inputs) == ["id_0", "id_1", "number_0"] and list(labels) == ["click", "conversion"]
    np.testing.assert_array_equal(inputs["id_1"], first["ids"][1, :3])


def test_a_peer_without_a_python_is_left_out():
    assert {side.framework for side in contestants(None, None, 2)} == {"mtl_zoo"}
    found = {side.name: side for side in contestants("rechub/python", "deepctr/python", 2)[4:]}
    assert set(found) == {"torch-rechub fit", "torch-rechub no_loader", "deepctr fit", "deepctr fit_without_l2"}
    assert len(found["torch-rechub fit"].candidates) == 6
    assert {settings["workers"] for settings in found["torch-rechub fit"].candidates} == {0, 1, 2}
    assert all({settings["threads"] for settings in side.candidates} == {1, 2} for side in found.values())
    assert found["deepctr fit"].command[0] == "deepctr/python"


def test_a_missing_python_is_named(data):
    side = Contestant("torch-rechub", "fit", ("/nowhere/python", "-c", FAKE))
    with pytest.raises(
        WorkerError, match="`torch-rechub` must name the Python .* Received: '/nowhere/python': No such"
    ):
        start(side, data)


def test_the_end_of_a_dead_workers_errors_is_shown(data):
    with start(fake("theirs", [1], mode="die"), data) as worker:
        with pytest.raises(WorkerError, match=r"theirs die .* ended with exit code 3\n.*\n(.*\n)*    out of memory"):
            worker.turn(4)
    broken = fake("theirs", [1], code="import no_such_peer")
    with pytest.raises(WorkerError, match=r"ended with exit code 1\n(.*\n)*.*No module named 'no_such_peer'"):
        start(broken, data)


def test_a_workers_exception_is_passed_on(data):
    with start(fake("theirs", [1], mode="fail"), data) as worker:
        with pytest.raises(WorkerError, match=r"failed: KeyError: 'no such column'\n(.*\n)*    Traceback"):
            worker.turn(4)


def test_an_answer_that_does_not_come_or_is_no_json(data):
    with start(fake("theirs", [1], mode="sleep"), data) as worker:
        worker.timeout = 0.3
        with pytest.raises(WorkerError, match="must answer within 0.3 s. Received: nothing"):
            worker.turn(4)
    with pytest.raises(WorkerError, match="must answer in JSON. Received: b'hello'"):
        start(fake("theirs", [1], code="input(); print('hello')"), data)


def test_a_turn_before_the_start_is_refused(data):
    with start(fake("theirs", [1]), data) as worker:
        with pytest.raises(WorkerError, match="`command` must be 'start', then 'turn'. Received: command='stop'"):
            worker._ask({"command": "stop"})


def test_what_is_refused():
    with pytest.raises(ValueError, match="`sides` and `pairs` must be at least 1. Received: 0 sides, pairs=5"):
        measure([], CASE)
    with pytest.raises(ValueError, match="`rows` must be at least 8 batches of 4. Received: rows=20"):
        measure([fake("ours", [1])], CASE, rows=20)
    with pytest.raises(ValueError, match="`candidates` of ours fit must hold at least one. Received: none"):
        measure([fake("ours")], CASE, rows=40)


def test_the_command_writes_a_row_for_each_or_says_why_not(monkeypatch, tmp_path, capsys):
    sides = [fake("ours", [2]), fake("theirs", [1])]
    monkeypatch.setattr(speed, "contestants", lambda *arguments: sides)
    monkeypatch.setattr(speed, "PeerCase", lambda vocabulary: dataclasses.replace(CASE, vocabulary=vocabulary))
    arguments = ["--out", str(tmp_path / "new" / "speed.csv"), "--vocabulary", "30", "--rows", "40", "--pairs", "2"]
    assert speed.main(arguments) == 0
    table = pd.read_csv(tmp_path / "new" / "speed.csv")
    assert list(table["ratio"]) == [1, 2] and list(table["vocabulary"]) == [30, 30]
    sides[1] = fake("theirs", [1], mode="fail")
    assert speed.main(arguments) == 1
    assert "no such column" in capsys.readouterr().err


@pytest.mark.extended
@pytest.mark.tensorflow
def test_our_worker_trains_the_case():
    from benchmarks.peers.speed_ours import Fit, Products

    data = Data(CASE.arrays(40), CASE.tasks)
    session = Fit(CASE.message(), data, {"optimizer": "auto"})
    experts, gates, towers = 2 * (5 * 4 + 4 + 4 * 3 + 3), 2 * (5 * 2), 2 * (3 * 2 + 2 + 2 + 1)
    assert session.parameters == 2 * 22 * 2 + experts + gates + towers
    seconds, loss = session.turn(40)
    assert seconds > 0 and 0.1 < loss < 2
    products = Products(CASE.message(), data)
    # Forward, gradient of the kernel, gradient of the input: experts and gates at once, experts, towers, logits.
    shapes = [tuple(found.shape) for found in products.step()]
    assert shapes[:3] == [(4, 2 * 4 + 2 * 2), (5, 12), (4, 5)]
    assert shapes[3:6] == [(2, 4, 3), (2, 4, 3), (2, 4, 4)]
    assert len(shapes) == 12 and products.turn(8)[1] is None
    with pytest.raises(ValueError, match="`learning_rate` must be that of the case, 0.5. Received: 0.001"):
        Fit(CASE.message() | {"learning_rate": 0.5}, data, {"optimizer": "adam"})
