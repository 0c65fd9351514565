import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import fusion
from benchmarks.studies.fusion import LABEL, compare
from mtl_zoo.recommend import ScoredLists


def lists(seed, observed):
    """Lists whose scores are the true probabilities with a little noise; the label is drawn, or the expectation."""
    rng = np.random.default_rng(seed)
    click, buy = rng.beta(1, 9, (2, 200 * 30))
    scores = {"click": click * rng.uniform(0.8, 1.2, len(click)), "conversion": buy * rng.uniform(0.8, 1.2, len(buy))}
    worth = (rng.random(len(click)) < click * buy) * 1.0 if observed else click * buy
    return ScoredLists(scores, {LABEL: worth}, np.arange(200 * 30) // 30), click * buy


def test_rows_are_measured_against_the_oracle_and_the_best_task():
    validation, test = lists(0, True)[0], lists(1, False)
    table = pd.DataFrame(compare(validation, *test, k=5, trials=15, resamples=200, seed=0)).set_index("fusion")
    assert set(fusion.KINDS) | {"monotone", "product", "click", "conversion", "oracle"} == set(table.index)
    best = np.sort(test[1].reshape(200, 30), axis=1)[:, -5:].sum(axis=1).mean()
    assert table.loc["oracle", "expected"] == pytest.approx(best, abs=1e-5)
    baseline = table["baseline"].dropna().iloc[0]
    assert table.loc[baseline, "gain"] == 0
    gains = table.loc["powers", "expected"] - table.loc[baseline, "expected"]
    assert table.loc["powers", "gain"] == pytest.approx(gains, abs=2e-5)
    assert table.loc["product", "share"] > 0.95 and table.loc["powers", "reaches"]
    assert not table.loc["product", "reaches"]  # the criterion is about what was tuned
    random = test[1].reshape(200, 30).mean(axis=1).mean() * 5
    over = (table.loc["borda", "expected"] - random) / (best - random)
    assert table.loc["borda", "share_over_random"] == pytest.approx(over, abs=1e-3)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_command_writes_rows_and_goes_on_after_them(tmp_path, monkeypatch):
    out = tmp_path / "fusion.csv"
    options = ["--train-rows", "2000", "--eval-rows", "4000", "--epochs", "1", "--trials", "3", "--resamples", "20"]
    assert fusion.main([*options, "--seeds", "1", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert len(table) == 9 and set(table["seed"]) == {0} and table["commit"].notna().all()
    monkeypatch.setattr(fusion, "run_seed", lambda *_: pytest.fail("what is there is not measured again"))
    fusion.main([*options, "--seeds", "1", "--out", str(out)])
