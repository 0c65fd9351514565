"""Weights and labels for logs that somebody chose: without bias where the truth is known."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.features import doubly_robust_labels, learn_propensities, naive_bayes_propensities, propensity_weights


@pytest.fixture(scope="module")
def log():
    """Many rows whose stars are known, of which liked ones are seen more often."""
    rng = np.random.default_rng(0)
    stars = rng.integers(1, 6, 200_000).astype(float)
    propensities = 0.05 * stars**1.5 / 2
    return stars, propensities, (rng.random(len(stars)) < propensities).astype(float)


def test_weighted_means_are_those_of_all_rows(log):
    stars, propensities, seen = log
    assert stars[seen > 0].mean() > 3.8  # what the log alone says
    for normalize in (False, True):
        weights = propensity_weights(propensities, seen, normalize=normalize)
        total = len(stars) if not normalize else weights.sum()
        assert (weights * stars).sum() / total == pytest.approx(3.0, abs=0.03)
    assert weights[seen > 0].mean() == pytest.approx(1.0) and (weights[seen == 0] == 0).all()


def test_a_clip_bounds_the_weights():
    found = propensity_weights([0.001, 0.5], clip=0.1, normalize=False)
    np.testing.assert_allclose(found, [10.0, 2.0])


@pytest.mark.parametrize("wrong", ["propensities", "scores", None])
def test_two_chances_to_be_right(log, wrong):
    """The mean of the labels is that of all rows if either is right, whatever the other is."""
    stars, propensities, seen = log
    believed = np.full(len(stars), 0.5) if wrong == "propensities" else propensities
    scores = np.full(len(stars), 1.0) if wrong == "scores" else stars
    found = doubly_robust_labels(np.where(seen, stars, np.nan), believed, scores)
    assert found.mean() == pytest.approx(3.0, abs=0.03)


def test_the_gradient_is_that_of_the_doubly_robust_estimate():
    y, p, imputed, seen = np.array([4.0, np.nan, 2.0]), np.array([0.2, 0.5, 0.4]), np.array([3.0, 2.5, 2.2]), [1, 0, 1]
    labels, f = doubly_robust_labels(y, p, imputed).astype(float), np.array([1.0, 2.0, 3.0])

    def estimate(at):
        inside = np.where(seen, (at - np.nan_to_num(y)) ** 2 - (at - imputed) ** 2, 0) / p
        return (at - imputed) ** 2 + inside

    slope = (estimate(f + 1e-5) - estimate(f - 1e-5)) / 2e-5
    np.testing.assert_allclose(2 * (f - labels), slope, rtol=1e-5)


def test_naive_bayes_finds_the_propensities_of_a_log(log):
    stars, propensities, seen = log
    sample = np.random.default_rng(1).choice(stars, 20_000)
    found = naive_bayes_propensities(stars[seen > 0], sample, seen.mean())
    np.testing.assert_allclose(found, propensities[seen > 0], rtol=0.1)


def test_a_regression_finds_who_is_asked(log):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"city": rng.choice(["Rome", "Oslo"], 20_000), "age": rng.normal(size=20_000)})
    table.loc[:99, "age"] = np.nan
    chance = np.where(table["city"] == "Rome", 0.6, 0.2)
    found = learn_propensities(table, rng.random(20_000) < chance)
    np.testing.assert_allclose(found, chance, atol=0.04)
    assert len(learn_propensities(table, rng.random(20_000) < chance, columns=["age"])) == 20_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: propensity_weights([0.0, 0.5]), "`propensities` must be above 0 and at most 1. Received: 1 others"),
        (lambda: propensity_weights([float("nan")]), "`propensities` must be above 0"),
        (lambda: propensity_weights([0.5], [2]), "`observed` must be 0 or 1 for each of 1 rows"),
        (lambda: propensity_weights([0.5], clip=2.0), "`clip` must"),
        (lambda: doubly_robust_labels([1, 2], [0.5], [1, 2]), "must have the same number of rows|`observed` must"),
        (lambda: doubly_robust_labels([np.nan], [0.5], [1], [1]), "`labels` must be there where observed"),
        (lambda: doubly_robust_labels([1], [0.5], [np.inf]), "`imputed` must be finite"),
        (lambda: naive_bayes_propensities([5], [1], 0.1), "`reference` must hold every label of the log. Missing"),
        (lambda: naive_bayes_propensities([5], [5], 0.0), "`share` must"),
        (lambda: learn_propensities(pd.DataFrame({"a": [1, 2]}), [1, 1]), "`observed` must hold both 0 and 1"),
        (lambda: learn_propensities(pd.DataFrame({"a": [1]}), [1], columns=["b"]), "`columns` must name columns"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
