"""The grid of static weights that methods are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mtl_zoo import _validation as check


def static_grid(names: Sequence[str], steps: int = 8, ratio: float = 100.0) -> list[dict[str, float]]:
    """Weight vectors that are spread evenly, on a log scale, between all tasks alike and one task above all others.

        w_k = T ratio^(i_k / steps) / sum_j ratio^(i_j / steps),   i_k >= 0 whole numbers with sum_k i_k = steps

    The `i / steps` are the points of a grid on the simplex, `C(steps + T - 1, T - 1)` of them: with two tasks
    `steps + 1`, whose ratio goes from `1 / ratio` to `ratio` in equal factors; with three 15 at 4 steps and 45 at 8.
    All weights are positive and sum to T, as those of the plain sum do, which is added if the grid lacks it.

    Args:
        names: Names of the losses.
        steps: Steps along an edge of the simplex.
        ratio: The largest ratio of two weights.

    Raises:
        ValueError: No or repeated names, `steps` < 1, a ratio that is not above 1.

    Example:

    >>> from mtl_zoo.balancing import static_grid
    >>> [round(weights["like"] / weights["click"], 3) for weights in static_grid(["click", "like"], steps=4)]
    [100.0, 10.0, 1.0, 0.1, 0.01]
    >>> len(static_grid(["click", "cart", "like"], steps=4))  # 15, and the plain sum
    16
    """
    names = tuple(names)
    check.check_int("number of names", len(names))
    check.check_unique_names("names", names)
    check.check_int("steps", steps)
    check.check_number("ratio", ratio, above=1)
    # All ways to write `steps` as an ordered sum: where the bars stand among the stars.
    count = len(names)
    places = np.array(list(itertools.combinations(range(steps + count - 1), count - 1)), "int64")
    edges = np.pad(places.reshape(len(places), count - 1), ((0, 0), (1, 1)), constant_values=(-1, steps + count - 1))
    raised = ratio ** ((np.diff(edges, axis=1) - 1) / steps)
    weights = count * raised / raised.sum(axis=1, keepdims=True)
    if not np.isclose(weights, 1.0).all(axis=1).any():
        weights = np.concatenate([weights, np.ones((1, count))])
    return [dict(zip(names, (float(f"{value:.6g}") for value in row), strict=True)) for row in weights]
