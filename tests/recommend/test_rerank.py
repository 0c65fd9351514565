"""Stages against slow and plain definitions, their rules, seeds, and how they follow each other."""

import time

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.recommend import (
    DPP,
    MMR,
    Boost,
    Candidates,
    CategoryCap,
    EpsilonGreedy,
    Freshness,
    Thompson,
    diversity_curve,
    draw_diversity_curve,
    greedy_dpp,
    rerank,
)


def drawn(n=30, width=6, seed=0):
    rng = np.random.default_rng(seed)
    columns = {
        "vector": rng.normal(size=(n, width)),
        "genre": rng.choice(["x", "y", "z"], n),
        "age": rng.uniform(0, 100, n),
        "deviation": rng.uniform(0, 0.3, n),
    }
    return Candidates(rng.permutation(1000)[:n], rng.random(n), columns)


def test_mmr_is_its_definition():
    candidates = drawn()
    unit = candidates.columns["vector"] / np.linalg.norm(candidates.columns["vector"], axis=1, keepdims=True)
    scores = (candidates.scores - candidates.scores.min()) / np.ptp(candidates.scores)
    chosen = [0]
    while len(chosen) < 8:
        value = {
            i: 0.4 * scores[i] - 0.6 * max(unit[i] @ unit[j] for j in chosen)
            for i in range(len(scores))
            if i not in chosen
        }
        chosen.append(max(value, key=value.get))
    assert rerank(candidates, MMR("vector", 0.4), k=8).ids.tolist() == candidates.ids[chosen].tolist()
    assert rerank(candidates, MMR("vector", 1.0), k=8).ids.tolist() == candidates.ids[:8].tolist()


def naive_greedy(kernel, k):
    """Determinants of whole submatrices, one for each candidate and place."""
    chosen, values = [], []
    for _ in range(k):
        left = [i for i in range(len(kernel)) if i not in chosen]
        tried = [np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]) for i in left]
        chosen.append(left[int(np.argmax(tried))])
        values.append(max(tried))
    return chosen, values


@pytest.mark.parametrize("seed", range(5))
def test_fast_greedy_has_the_determinants_of_naive_greedy(seed):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(25, 12)) * rng.uniform(0.5, 1.5, (25, 1))
    kernel = factors @ factors.T
    chosen, values = naive_greedy(kernel, 8)
    fast = greedy_dpp(kernel, 8)
    assert fast.tolist() == chosen
    got = [np.linalg.det(kernel[np.ix_(fast[: i + 1], fast[: i + 1])]) for i in range(8)]
    np.testing.assert_allclose(got, values, rtol=1e-6)


def test_the_stage_is_greedy_on_its_kernel():
    candidates, trade_off = drawn(), 0.6
    unit = candidates.columns["vector"] / np.linalg.norm(candidates.columns["vector"], axis=1, keepdims=True)
    scores = (candidates.scores - candidates.scores.min()) / np.ptp(candidates.scores)
    quality = np.exp(trade_off / (2 * (1 - trade_off)) * scores)
    kernel = quality[:, None] * (1 + unit @ unit.T) / 2 * quality
    chosen = naive_greedy(kernel, 6)[0]
    assert rerank(candidates, DPP("vector", trade_off), k=6).ids.tolist() == candidates.ids[chosen].tolist()


def test_what_adds_no_volume_follows_by_score():
    # In two dimensions the lifted vectors span three at most.
    candidates = drawn(n=10, width=2)
    shown = rerank(candidates, DPP("vector", 0.5), k=10)
    assert shown.ids[:3].tolist() == rerank(candidates, DPP("vector", 0.5), k=3).ids.tolist()
    assert (np.diff(shown.scores[3:]) <= 0).all() and sorted(shown.ids) == sorted(candidates.ids)
    zeros = Candidates([1, 2, 3], [3, 2, 1], {"vector": [[0, 0], [0, 0], [1, 0]]})
    assert rerank(zeros, DPP("vector", 0.1), k=2).ids.tolist() == [1, 3]
    same = Candidates([1, 2], [1, 1], {"vector": [[1.0], [1.0]]})
    assert len(greedy_dpp(np.ones((3, 3)), 3)) == 1 and rerank(same, DPP("vector"), k=2).ids.tolist() == [1, 2]


def most_in(window, categories):
    rows = [categories[i : i + window] for i in range(max(len(categories) - window + 1, 1))]
    return max(max(np.unique(row, return_counts=True)[1]) for row in rows)


def test_caps_and_windows():
    candidates = drawn()
    capped = rerank(candidates, CategoryCap("genre", most=2), k=6)
    assert most_in(6, capped.column("genre")) == 2 and capped.ids[0] == candidates.ids[0]
    spaced = rerank(candidates, CategoryCap("genre", most=1, window=3), k=12)
    assert most_in(3, spaced.column("genre")) == 1 and most_in(4, spaced.column("genre")) > 1
    # Of a category the better ones come first.
    for genre in "xyz":
        kept = spaced.scores[spaced.column("genre") == genre]
        assert (np.diff(kept) <= 0).all()


def test_a_cap_that_cannot_be_kept():
    one = Candidates(range(5), range(5, 0, -1), {"genre": ["x", "x", "x", "y", "x"]})
    assert rerank(one, CategoryCap("genre", most=1), k=4).ids.tolist() == [0, 3, 1, 2]
    assert rerank(one, CategoryCap("genre", most=1, fill=False), k=4).ids.tolist() == [0, 3]


def test_boosts():
    candidates = drawn()
    fresh = Freshness("age", half_life=10, bonus=0.5)(candidates, 5, None)
    expected = candidates.scores * (1 + 0.5 * 0.5 ** (candidates.columns["age"] / 10))
    assert dict(zip(fresh.ids, fresh.scores, strict=True)) == pytest.approx(
        dict(zip(candidates.ids, expected, strict=True))
    )
    assert (np.diff(fresh.scores) <= 0).all()
    boosted = Boost("genre", {"x": 0, "y": 2})(candidates, 5, None)
    factors = {"x": 0, "y": 2, "z": 1}
    by_id = dict(zip(candidates.ids, candidates.scores, strict=True))
    for identity, genre, score in zip(boosted.ids, boosted.column("genre"), boosted.scores, strict=True):
        assert score == by_id[identity] * factors[genre]


def test_exploration_by_seed():
    candidates = drawn()
    for stage in (EpsilonGreedy(0.5), Thompson("deviation")):
        lists = [tuple(rerank(candidates, stage, k=6, seed=seed).ids) for seed in (0, 0, 1, 2, 3)]
        assert lists[0] == lists[1] and len(set(lists)) > 2
    assert rerank(candidates, EpsilonGreedy(0), k=6).ids.tolist() == candidates.ids[:6].tolist()
    assert rerank(candidates, Thompson("deviation", scale=0), k=6).ids.tolist() == candidates.ids[:6].tolist()
    firsts = [rerank(candidates, EpsilonGreedy(1.0), k=1, seed=seed).ids[0] for seed in range(3000)]
    shares = pd.Series(firsts).value_counts(normalize=True)
    assert len(shares) == 30 and shares.max() < 0.05  # 1/30 each


def test_thompson_draws_what_it_says():
    two = Candidates(["a", "b"], [0.5, 0.4], {"deviation": [0.1, 0.1]})
    wins = np.mean([rerank(two, Thompson("deviation"), k=1, seed=seed).ids[0] == "b" for seed in range(4000)])
    assert wins == pytest.approx(0.2398, abs=0.025)  # P(N(-.1, .02) > 0)


def test_stages_follow_each_other():
    candidates = drawn()
    chain = (
        Freshness("age", 10),
        Thompson("deviation", 0.1),
        MMR("vector"),
        CategoryCap("genre", 2),
        EpsilonGreedy(0.2),
    )
    shown = rerank(candidates, *chain, k=5, seed=3)
    step, rng = candidates, np.random.default_rng(3)
    for stage in chain:
        step = stage(step, 5, rng)
        assert sorted(step.ids) == sorted(candidates.ids)
    assert shown.ids.tolist() == step.ids[:5].tolist()
    assert rerank(candidates, k=3).ids.tolist() == candidates.ids[:3].tolist()
    assert len(rerank(candidates, MMR("vector"), k=99)) == 30
    # Columns move with their candidates.
    row = candidates.ids.tolist().index(shown.ids[0])
    assert shown.column("age")[0] == candidates.column("age")[row]


STAGES = [MMR("vector"), DPP("vector"), CategoryCap("genre"), Freshness("age", 1), Boost("genre", {"x": 2}),
          EpsilonGreedy(), Thompson("deviation")]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_no_candidates_and_a_thousand(stage):
    nobody = drawn().at(np.zeros(0, int))
    assert len(rerank(nobody, stage, k=5)) == 0
    candidates = drawn(n=1000, width=32)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert len(rerank(candidates, stage, k=50)) == 50
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.0  # some milliseconds on an idle machine; a loop over pairs takes minutes


def test_the_curve_is_a_table_and_a_picture(tmp_path):
    lists = [drawn(n=60, seed=seed) for seed in range(4)]
    stages = {"MMR": lambda t: MMR("vector", t), "DPP": lambda t: DPP("vector", t)}
    curve = diversity_curve(lists, stages, [0.1, 0.5, 0.99], vectors="vector", k=5)
    for _, part in curve.groupby("stage"):
        assert part["value"].is_monotonic_increasing and part["diversity"].is_monotonic_decreasing
    first = rerank(lists[0], MMR("vector", 0.1), k=5)
    unit = first.unit_vectors("vector")
    by_hand = np.mean([1 - unit[i] @ unit[j] for i in range(5) for j in range(i)])
    alone = diversity_curve(lists[:1], {"MMR": stages["MMR"]}, [0.1], vectors="vector", value="age", k=5)
    assert alone["diversity"][0] == pytest.approx(by_hand)
    assert alone["value"][0] == pytest.approx(first.column("age").mean())
    path = draw_diversity_curve(curve, tmp_path / "curve.png")
    assert path.stat().st_size > 5000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Candidates([1, 1], [1, 2]), r"`ids` must be unique. Received: \[1\] twice"),
        (lambda: Candidates([1], [1, 2]), "must have one number of rows"),
        (lambda: Candidates([1], [np.nan]), "`scores` must be finite. Received: 1 NaN"),
        (lambda: rerank(drawn(), MMR("picture"), k=2), "`columns` must hold 'picture'"),
        (lambda: rerank(drawn(), MMR("genre"), k=2), r"`columns\['genre'\]` must hold finite numbers"),
        (lambda: rerank(drawn(), MMR("age"), k=2), r"`columns\['age'\]` must hold a vector a candidate"),
        (lambda: rerank(drawn(), k=0), "`k` must be a whole number >= 1"),
        (lambda: MMR("v", 1.2), "`trade_off` must be a finite number and >= 0 and <= 1"),
        (lambda: DPP("v", 1.0), "`trade_off` must be a finite number and >= 0 and < 1"),
        (lambda: greedy_dpp([[1, 2], [3, 4]], 1), "`kernel` must be symmetric"),
        (lambda: CategoryCap("genre", 0), "`most` must be a whole number >= 1"),
        (lambda: CategoryCap("genre", window=1), "`window` must be a whole number >= 2"),
        (lambda: Freshness("age", 0), "`half_life` must be a finite number and > 0"),
        (lambda: rerank(Candidates([1], [1], {"age": [-1]}), Freshness("age", 1), k=1), r"must hold ages >= 0"),
        (lambda: rerank(Candidates([1], [-1], {"age": [1]}), Freshness("age", 1), k=1), "`scores` must be >= 0"),
        (lambda: Boost("genre", {}), "`factors` must name at least one value"),
        (lambda: Boost("genre", {"x": -1}), r"`factors\['x'\]` must be a finite number and >= 0"),
        (lambda: EpsilonGreedy(2), "`epsilon` must be a finite number"),
        (lambda: Thompson("d", -1), "`scale` must be a finite number and >= 0"),
        (lambda: rerank(Candidates([1], [1], {"d": [-1]}), Thompson("d"), k=1), "must hold deviations >= 0"),
        (lambda: diversity_curve([], {}, [], vectors="v"), "`lists` must have lists of at least 2 candidates"),
        (lambda: draw_diversity_curve(pd.DataFrame({"stage": []}), "x.png"), "`curve` must have the columns"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
