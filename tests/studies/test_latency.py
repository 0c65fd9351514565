"""Ways to score a request give the same scores; a row for each of them."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import latency
from benchmarks.studies.latency import Request

pytestmark = pytest.mark.tensorflow

SMALL = {"candidates": 5, "vocabulary": 9, "features": 4, "numerics": 3, "dim": 2}
WAYS = ["exported", "scorer", "rank", "raw rank", "prepared", "prepared, by place"]


def test_every_way_gives_the_same_scores(tmp_path, monkeypatch):
    case = Request("shared_bottom", text=True, hyperparameters={"bottom_units": (4,)}, **SMALL)
    assert case.user_columns == ("id_0", "id_1", "number_0")
    latency.write_model(case, tmp_path)
    ways, _ = latency.ways_to_score(tmp_path, case.user_columns)
    assert list(ways) == WAYS
    scores = {name: way() for name, way in ways.items()}
    for name in WAYS:
        assert scores[name]["click"].shape == (5, 1)
        np.testing.assert_allclose(scores[name]["click"], scores["exported"]["click"], atol=1e-6)
    monkeypatch.setattr(latency, "ceilings", lambda: {"matmul_gflops": 1.0})
    rows = latency.time_ways(tmp_path, case.user_columns, 3)
    assert [row["way"] for row in rows] == WAYS
    for row in rows:
        assert 0 < row["median_ms"] <= row["p99_ms"] and row["calls"] == 3
        assert row["candidates_per_second"] == pytest.approx(5e3 / row["median_ms"], rel=0.1)


def test_a_hyperparameter_of_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`--set` must name arguments of the models. Received: \['experts'\]"):
        latency.main(["--set", "experts=3", "--out", str(tmp_path / "latency.csv")])


@pytest.mark.slow
def test_a_fresh_process_on_one_core(tmp_path):
    sizes = ["--candidates", "5", "--vocabulary", "9", "--features", "4", "--numerics", "3", "--calls", "2"]
    models = ["--models", "mmoe", "shared_bottom", "--set", "num_experts=2", "tower_units=4,"]
    assert latency.main([*models, *sizes, "--out", str(tmp_path / "out" / "latency.csv")]) == 0
    table = pd.read_csv(tmp_path / "out" / "latency.csv")
    assert list(zip(table["model"], table["way"], strict=True)) == [(m, w) for m in models[1:3] for w in WAYS]
    assert json.loads(table["hyperparameters"][0]) == {"num_experts": 2, "tower_units": [4]}
    assert json.loads(table["hyperparameters"][len(WAYS)]) == {"tower_units": [4]}
    assert (table["matmul_share"] > 0).all() and table["core"][0] in os.sched_getaffinity(0)
