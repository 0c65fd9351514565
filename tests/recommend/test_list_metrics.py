"""Golden values by hand, and each shortcut against the slow definition."""

import itertools

import numpy as np
import pytest

from mtl_zoo.recommend import (
    calibration,
    catalogue_coverage,
    gini,
    group_lift,
    intra_list_diversity,
    novelty,
    personalisation,
    popularity_lift,
)

LISTS = np.array([[0, 1, 2], [1, 3, -1], [4, 1, 0]])


def test_coverage_and_gini():
    assert catalogue_coverage(LISTS, range(10)) == 0.5
    counts = np.bincount(LISTS[LISTS >= 0], minlength=10)
    gaps = np.abs(counts[:, None] - counts).sum() / (2 * 10**2 * counts.mean())
    assert gini(LISTS, range(10)) == pytest.approx(gaps)


def test_novelty():
    assert novelty([["a", "b", "c"]], {"a": 4, "b": 2, "c": 1}, 8) == 2
    assert novelty([[1], [2]], {1: 2}, 4) == pytest.approx((1 + 3) / 2)  # an item that nobody had is half a user's


def test_diversity_is_the_mean_over_pairs():
    vectors = np.random.default_rng(0).normal(size=(5, 4))
    vectors[3] = 0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    means = [np.mean([1 - unit[i] @ unit[j] for i, j in itertools.combinations(row[row >= 0], 2)]) for row in LISTS]
    assert intra_list_diversity(LISTS, range(5), vectors) == pytest.approx(np.mean(means))


def test_personalisation_is_the_mean_over_pairs():
    rng = np.random.default_rng(1)
    lists = np.array([rng.permutation(9)[:4] for _ in range(7)])
    overlaps = [len(set(a) & set(b)) / 4 for a, b in itertools.combinations(lists, 2)]
    assert personalisation(lists) == pytest.approx(1 - np.mean(overlaps))


def test_calibration():
    genres = [[1, 0], [0, 1], [1, 1], [0, 0]]
    # A history of 3/4 genre 0; a list of genre 1 alone: q~ = .99 (0, 1) + .01 (3/4, 1/4).
    expected = 0.75 * np.log(0.75 / 0.0075) + 0.25 * np.log(0.25 / 0.9925)
    assert calibration([[1]], [[0, 2]], range(4), genres) == pytest.approx(expected)
    # Users with nothing to compare are left out.
    assert calibration([[1], [3], [1]], [[0, 2], [0], []], range(4), genres) == pytest.approx(expected)
    # A genre that the history lacks adds nothing.
    assert calibration([[0, 1]], [[0]], range(4), genres) == pytest.approx(-np.log(0.99 * 0.5 + 0.01))


def test_popularity_lift():
    lift = popularity_lift([[1, 2], [1, -1]], [[2], [2, 3]], {1: 10, 2: 4}, groups=["a", "b"])
    assert lift.to_dict() == {"a": pytest.approx(7 / 4 - 1), "b": pytest.approx(10 / 2 - 1)}
    assert popularity_lift([[1, 2]], [[2]], {1: 10, 2: 4})["all"] == pytest.approx(0.75)


def test_group_lift():
    lift = group_lift([[1, 2], [1, -1]], [[1], [2, 2]], [1, 2, 3], ["x", "y", "z"])
    assert lift["x"] == pytest.approx(2.0) and lift["y"] == pytest.approx(0.5) and np.isnan(lift["z"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: catalogue_coverage([[1, 2]], [1]), "`recommended` must hold ids of the catalogue"),
        (lambda: catalogue_coverage([[1]], [1, 1]), "`catalogue` must name each id once"),
        (lambda: gini([[-1]], [1]), "`recommended` must show at least one item"),
        (lambda: novelty([[1]], {1: 9}, 8), "`popularity` must be at most `users`, 8"),
        (lambda: novelty([[1]], {1: -1}, 8), "`popularity` must be numbers >= 0"),
        (lambda: novelty([[-1]], {1: 1}, 8), "must show at least one item"),
        (lambda: intra_list_diversity([[0]], [0], [[1.0]]), "`recommended` must have a list of at least two items"),
        (lambda: intra_list_diversity([[0, 1]], [0, 1], [[1.0]]), "`vectors` must be finite numbers of shape"),
        (lambda: personalisation([[1, 2]]), "`recommended` must have at least two users"),
        (lambda: personalisation([[1, 1], [2, 3]]), "`recommended` must name an id once"),
        (lambda: calibration([[0]], [[]], [0], [[1.0]]), "`history` must be known of a user with a list"),
        (lambda: calibration([[0]], [[0]], [0], [[-1.0]]), "`genres` must be weights >= 0"),
        (lambda: calibration([[0]], [[5]], [0], [[1.0]]), "`history` must hold ids of the catalogue"),
        (lambda: popularity_lift([[0]], [[]], {0: 1}), "`history` must be known of a user with a list"),
        (lambda: popularity_lift([[0]], [[1]], {0: 1}), "`popularity` must be > 0 in the histories of a group"),
        (lambda: popularity_lift([[0]], [[1]], {0: 1}, groups=["a", "b"]), "`groups` must have one value a user"),
        (lambda: group_lift([[0]], [[0]], [0], ["a", "b"]), "`groups` must have one value an item"),
        (lambda: group_lift([[0]], [[]], [0], ["a"]), "must not be empty"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
