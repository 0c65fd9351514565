"""The search finds what is known to be best, keeps floors, and never sees the test lists."""

import importlib.util

import numpy as np
import pytest

from mtl_zoo.recommend import Formula, Powers, ScoredLists, WeightedSum, tune_fusion

SAMPLERS = ["random"] + (["optuna"] if importlib.util.find_spec("optuna") else [])


def lists(seed, users=60, candidates=40):
    """Clicks and conversions, known exactly, and a noisy score of both."""
    rng = np.random.default_rng(seed)
    click, buy = rng.beta(1, 9, (2, users * candidates))
    scores = {"click": click, "buy": buy, "noise": rng.random(users * candidates)}
    return ScoredLists(scores, {"bought": click * buy, "clicks": click}, np.arange(users * candidates) // candidates)


def test_values_are_sums_of_the_first_k():
    made = ScoredLists({"a": [1, 3, 2, 5, 5, 0]}, {"y": [10, 1, 100, 7, 8, 9]}, ["x", "x", "x", "z", "z", "z"])
    assert made.values(WeightedSum({"a": 1}), "y", k=2).tolist() == [101, 15]
    assert made.values(WeightedSum({"a": 1}), "y", k=1).tolist() == [1, 7]  # equal scores stay in order
    best = 100 + 10 / np.log2(3)
    ndcg = made.values(WeightedSum({"a": 1}), "y", k=2, metric="ndcg")
    assert ndcg[0] == pytest.approx((1 + 100 / np.log2(3)) / best)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_finds_the_product(sampler):
    validation, test = lists(0), lists(1)
    found = tune_fusion("powers", validation, objective="bought", test=test, trials=60, sampler=sampler, resamples=300)
    assert found.sampler == sampler and len(found.trials) == 60
    oracle = Powers({"click": 1, "buy": 1})
    reached = test.values(found.fusion, "bought").mean() / test.values(oracle, "bought").mean()
    assert reached > 0.95
    assert found.gain.low > 0 and found.gain.value == pytest.approx(
        test.values(found.fusion, "bought").mean() - test.values(found.baseline, "bought").mean()
    )
    best = found.trials.loc[found.trials["bought"].idxmax()]
    assert all(best[name] == value for name, value in found.parameters.items())
    assert found.test.loc["clicks", "fusion"] == pytest.approx(test.values(found.fusion, "clicks").mean())
    again = tune_fusion("powers", validation, objective="bought", trials=60, sampler=sampler)
    assert again.trials.equals(found.trials) and again.test is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_floors_bind(sampler):
    validation = lists(0)
    options = {"objective": "bought", "trials": 40, "sampler": sampler}
    free = tune_fusion("weighted_sum", validation, **options)
    least = float(free.trials["clicks"].quantile(0.9))
    held = tune_fusion("weighted_sum", validation, floors={"clicks": least}, **options)
    chosen = held.trials[held.trials["feasible"]].sort_values("bought").iloc[-1]
    assert chosen["clicks"] >= least and validation.values(held.fusion, "clicks").mean() >= least
    assert not held.trials["feasible"].all() and not held.trials.loc[~held.trials["feasible"], "front"].any()
    with pytest.raises(ValueError, match="`floors` must be within reach. Received: .* the most of any trial is"):
        tune_fusion("weighted_sum", validation, floors={"clicks": 1e6}, **options)


def test_the_front_is_what_nothing_beats():
    found = tune_fusion("borda", lists(2), objective="bought", trials=30, sampler="random")
    values = found.trials[["bought", "clicks"]].to_numpy()
    for row, front in zip(values, found.trials["front"], strict=True):
        beaten = ((values >= row).all(axis=1) & (values > row).any(axis=1)).any()
        assert front == (not beaten)
    assert found.front["bought"].is_monotonic_decreasing and len(found.front)


def test_the_test_lists_are_read_once_the_choice_is_made():
    seen, validation, test = [], lists(0), lists(1)

    def judge(data, name):
        def values(fusion):
            seen.append(name)
            return {label: data.values(fusion, label) for label in data.labels}

        return values

    def make(suggest):
        return Formula("click ** a * buy ** b", {"a": suggest("a", 0, 2), "b": suggest("b", 0, 2)})

    found = tune_fusion(
        make, judge(validation, "validation"), objective="bought", test=judge(test, "test"),
        tasks=["click", "buy"], trials=8, sampler="random", resamples=50,
    )  # fmt: skip
    assert seen == ["validation"] * 10 + ["test"] * 2
    # Other test lists change nothing of what is chosen.
    other = tune_fusion(make, validation, objective="bought", test=lists(5), tasks=["click", "buy"], trials=8,
                        sampler="random", resamples=50)  # fmt: skip
    assert other.fusion == found.fusion and other.trials.equals(found.trials)


def test_without_optuna(monkeypatch):
    monkeypatch.setattr("mtl_zoo.recommend.tuning.importlib.util.find_spec", lambda name: None)
    assert tune_fusion("powers", lists(0), objective="bought", trials=2).sampler == "random"
    with pytest.raises(ValueError, match=r'`sampler` must be "random" where Optuna is not installed'):
        tune_fusion("powers", lists(0), objective="bought", trials=2, sampler="optuna")


def test_errors():
    made = lists(0)
    copy = ScoredLists({n: v.copy() for n, v in made.scores.items()}, dict(made.labels), made.groups)
    cases = [
        (lambda: tune_fusion("powers", made, objective="bought", test=made), "`test` must be other rows"),
        (lambda: tune_fusion("powers", made, objective="bought", test=copy), "`test` must be other rows"),
        (lambda: tune_fusion("powers", made, objective="sold"), "`objective` must be one of the known values"),
        (lambda: tune_fusion("powers", made, objective="bought", floors={"x": 1}), "`floors` must be one of"),
        (lambda: tune_fusion("magic", made, objective="bought"), "`fusion` must be one of the known values"),
        (lambda: tune_fusion("formula", made, objective="bought"), "must be a kind that can be searched"),
        (lambda: tune_fusion("powers", made, objective="bought", tasks=["x"]), "`tasks` must be one of"),
        (lambda: tune_fusion("powers", len, objective="bought"), "`tasks` must be given where `validation`"),
        (lambda: tune_fusion("powers", made, objective="bought", metric="auc"), "`metric` must be one of"),
        (lambda: tune_fusion("powers", made, objective="bought", trials=1).gain, "`test` must be given"),
        (lambda: ScoredLists({"a": [1]}, {"y": [1, 2]}, [1]), "must have one number of rows"),
        (lambda: ScoredLists({"a": [1]}, {"y": [-1]}, [1]), "`labels` must be >= 0.*'y'"),
        (lambda: ScoredLists({"a": [np.nan]}, {"y": [1]}, [1]), "scores finite too.*'a'"),
        (lambda: made.values(WeightedSum({"click": 1}), "sold"), "`label` must be one of the known values"),
        (
            lambda: tune_fusion(
                "powers", lambda fusion: {"y": [np.nan]}, objective="y", tasks=["a"], trials=1, sampler="random"
            ),
            "`validation` must give finite values",
        ),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
