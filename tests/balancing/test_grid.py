"""The grid of static weights."""

import math

import numpy as np
import pytest

from mtl_zoo.balancing import Static, static_grid


@pytest.mark.parametrize(("tasks", "steps"), [(1, 3), (2, 8), (2, 5), (3, 3), (3, 4), (4, 2), (8, 1)])
def test_the_grid_covers_the_simplex_evenly(tasks, steps):
    names = [f"task_{i}" for i in range(tasks)]
    grid = static_grid(names, steps, ratio=50.0)
    rows = np.array([[weights[name] for name in names] for weights in grid])
    assert (rows > 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), tasks, rtol=1e-5)
    assert len(np.unique(rows.round(5), axis=0)) == len(rows)
    equal = np.isclose(rows, 1.0, atol=1e-5).all(axis=1)
    assert equal.sum() == 1
    lattice = rows if steps % tasks == 0 else rows[~equal]
    assert len(lattice) == math.comb(steps + tasks - 1, tasks - 1)
    # On the log scale each point lies on the lattice, and every corner is there.
    if tasks > 1:
        logs = np.log(lattice) / np.log(50.0) * steps
        np.testing.assert_allclose(logs - logs[:, :1], np.round(logs - logs[:, :1]), atol=1e-3)
        assert (np.isclose(lattice.max(axis=1) / lattice.min(axis=1), 50.0, rtol=1e-4)).sum() == tasks


def test_two_tasks_go_from_one_ratio_to_its_inverse():
    ratios = [weights["b"] / weights["a"] for weights in static_grid(["a", "b"])]
    np.testing.assert_allclose(sorted(ratios), np.logspace(-2, 2, 9), rtol=1e-4)


def test_every_point_is_one_of_static():
    for weights in static_grid(["a", "b", "c"], 3):
        method = Static(weights)
        method.prepare(("a", "b", "c"), ("binary",) * 3)
        assert method.values == tuple(weights.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: static_grid([]), "`number of names` must be a whole number >= 1"),
        (lambda: static_grid(["a", "a"]), "`names` must have different names"),
        (lambda: static_grid(["a"], steps=0), "`steps` must be a whole number >= 1"),
        (lambda: static_grid(["a"], ratio=1.0), "`ratio` must be a finite number and > 1"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
