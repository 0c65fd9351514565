"""What balancing costs: on tiny sizes, that the right things are timed and counted."""

import pandas as pd
import pytest

from benchmarks.studies import balancing_cost
from benchmarks.studies._steps import Case
from benchmarks.studies.balancing_cost import every_method, measure
from mtl_zoo import list_balancing
from mtl_zoo.balancing import MGDA, create_balancing

pytestmark = pytest.mark.tensorflow

TINY = {"batch": 8, "features": 2, "numerics": 1, "hyperparameters": {"bottom_units": (4,), "tower_units": (3,)}}


@pytest.mark.slow
def test_rows_of_methods_against_the_plain_sum(monkeypatch):
    passed = iter(range(10_000))
    monkeypatch.setattr(balancing_cost.time, "perf_counter", lambda: float(next(passed)))
    methods = ["uncertainty", MGDA(update_every=2), create_balancing("famo", reevaluates=True), "moco"]
    rows = measure(Case("shared_bottom", 20, num_tasks=3, **TINY), methods, rounds=2, steps=1)
    table = pd.DataFrame(rows)
    assert list(table["method"]) == ["equal", "uncertainty", "mgda(update_every=2)", "famo(reevaluates=True)", "moco"]
    assert list(table["kind"]) == ["losses", "losses", "gradients", "reevaluated", "gradients"]
    assert list(table["allowed"]) == [1.1, 1.1, 2.35, 1.5, 2.35]
    assert set(table["ratio"]) == {1.0} and table["within"].all() and set(table["step_ms"]) == {1000.0}
    # 2 x 16 + 1 inputs, 4 units and their biases, that three tasks share.
    assert set(table["dense_shared"]) == {33 * 4 + 4}
    assert set(table["allowed_mb"]) == {round(2 * 3 * 136 * 4 / 1e6, 2)}
    states = dict(zip(table["method"], table["state_mb"], strict=True))
    assert states["equal"] == 0 and states["moco"] >= 3 * 136 * 4 / 1e6 > states["uncertainty"]
    assert (
        table["extra_mb"] - (table["state_mb"] + table["transient_mb"] - table["transient_mb"][0])
    ).abs().max() < 0.02


def test_every_method_has_its_turn():
    names = [method.method_name for method in every_method(("click", "like"))]
    assert names[:-1] == list_balancing() and names[-1] == "famo"
    model = Case("shared_bottom", 20, **TINY).build()
    for method in every_method(model.loss_names):
        model.compile("sgd", balancing=method)


@pytest.mark.slow
def test_the_command_writes_a_row_for_each_number_of_tasks_and_method(tmp_path, capsys):
    out = tmp_path / "a" / "cost.csv"
    words = "--model shared_bottom --vocabulary 20 --features 2 --numerics 1 --batch 8 --rounds 1 --steps 1"
    words += f" --set bottom_units=4 tower_units=3 --tasks 2 3 --methods pcgrad --out {out}"
    assert balancing_cost.main(words.split()) == 0
    table = pd.read_csv(out)
    assert list(zip(table["num_tasks"], table["method"], strict=True)) == [
        (2, "equal"), (2, "pcgrad"), (3, "equal"), (3, "pcgrad"),
    ]  # fmt: skip
    assert (table["step_ms"] > 0).all() and "pcgrad" in capsys.readouterr().out
