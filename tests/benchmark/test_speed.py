import json

import pandas as pd
import pytest

from mtl_zoo.benchmark.speed import SpeedCase, ceilings, measure, speed_main

pytestmark = pytest.mark.tensorflow


def test_cases_are_timed_in_turn_against_the_first(tmp_path):
    small = ["--features", "2", "--numerics", "1", "--batch", "16", "--rounds", "2", "--steps", "1"]
    more = ["--vocabulary", "10", "1000", "--optimizers", "auto", "adam", "--set", "bottom_units=4"]
    assert speed_main(["--models", "shared_bottom", *more, *small, "--out", str(tmp_path / "out" / "speed.csv")]) == 0
    table = pd.read_csv(tmp_path / "out" / "speed.csv")
    assert list(zip(table["vocabulary"], table["optimizer"], strict=True)) == [
        (10, "auto"), (1000, "auto"), (10, "adam"), (1000, "adam"),
    ]  # fmt: skip
    assert table["ratio"][0] == 1.0
    assert (table["step_ms"] > 0).all() and (table["matmul_share"] > 0).all()
    assert json.loads(table["hyperparameters"][0]) == {"bottom_units": 4}


def test_ceilings_are_positive():
    assert all(value > 0 for value in ceilings(seconds=0.01).values())


def test_what_is_refused():
    with pytest.raises(ValueError, match="`cases` must hold at least one case"):
        measure([])
    with pytest.raises(ValueError, match="`vocabulary` must be a whole number >= 1"):
        SpeedCase("mmoe", 0)
