import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import search
from mtl_zoo.metrics.exact import auc


def runs(noise, seeds=2, rows=3000):
    """Test scores as the runner keeps them: of a click, and of a conversion that is observed on clicked rows."""
    truth = np.random.default_rng(9)
    rate = {"click": truth.beta(2, 5, rows), "conversion": truth.beta(2, 5, rows)}
    click = truth.random(rows) < rate["click"]
    label = {"click": click * 1.0, "conversion": (click & (truth.random(rows) < rate["conversion"])) * 1.0}
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        run = {task: (rate[task] + rng.normal(scale=noise, size=rows))[:, None] for task in rate}
        run |= {f"label:{task}": label[task] for task in rate}
        found.append({**run, "observed:click": np.ones(rows), "observed:conversion": click * 1.0})
    return found


def test_differences_are_those_of_auc_on_the_rows_that_count():
    start, best = runs(0.3), runs(0.1)
    table = pd.DataFrame(search.compared(start, best, ["click", "conversion"], resamples=60)).set_index("task")
    there = start[0]["observed:conversion"] > 0
    y = start[0]["label:conversion"][there]
    of = [[auc(y, run["conversion"][there, 0]) for run in side] for side in (start, best)]
    assert table.loc["conversion", "start_test"] == pytest.approx(np.mean(of[0]), abs=1e-5)
    assert table.loc["conversion", "difference"] == pytest.approx(np.mean(of[1]) - np.mean(of[0]), abs=2e-5)
    assert (table["low"] > 0).all() and (table["low"] < table["difference"]).all() and (table["seeds_above"] == 2).all()
    mean = table.loc[["click", "conversion"], "difference"].mean()
    assert table.loc["score", "difference"] == pytest.approx(mean, abs=2e-5)
    same = pd.DataFrame(search.compared(start, start, ["click"], resamples=20))
    assert (same[["difference", "low", "high", "seeds_above"]] == 0).all(axis=None)


@pytest.mark.slow  # a search and four trainings
@pytest.mark.tensorflow
def test_the_command_writes_rows_and_goes_on_after_them(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    small = {"dataset": "synthetic_funnel", "dataset_options": {"size": 1000}}
    monkeypatch.setattr(search, "DATA", {"funnel": small})
    options = ["--data", "funnel", "--model", "shared_bottom", "--trials", "2", "--epochs", "1", "--seeds", "2"]
    options += ["--resamples", "5", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "search.csv")]
    assert search.main(options) == 0
    table = pd.read_csv(tmp_path / "search.csv")
    assert table["task"].tolist() == ["click", "conversion", "score"] and (table["trials"] == 2).all()
    assert (table["best_validation"] >= table["start_validation"]).all() and (table["seeds"] == 2).all()
    assert (tmp_path / "search-trials-funnel.csv").exists()
    monkeypatch.setattr(search, "run_case", lambda *_: pytest.fail("what is there is not measured again"))
    search.main(options)
