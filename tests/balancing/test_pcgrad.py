"""PCGrad: against a loop over vectors, in fixed and random order."""

import itertools

import numpy as np
import pytest
from grams import COUNTS, TOY, coefficients, coefficients_of, direction, prepared, random_gradients

from mtl_zoo.balancing import PCGrad

THREE = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, 1.0]])


def oracle(gradients, order=None):
    """Each p_i, with the vectors themselves."""
    order = range(len(gradients)) if order is None else order
    projected = gradients.copy()
    for i in range(len(gradients)):
        for j in order:
            product = projected[i] @ gradients[j]
            if j != i and product < 0:
                projected[i] -= product / (gradients[j] @ gradients[j]) * gradients[j]
    return projected


def test_golden():
    np.testing.assert_allclose(oracle(TOY), [[0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(direction("pcgrad", TOY), [0.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(direction("pcgrad", TOY, reduction="mean"), [0.25, 0.75], atol=1e-6)


def test_golden_of_both_orders_of_three():
    np.testing.assert_allclose(direction("pcgrad", THREE, shuffle=False), [-0.6667, 0.3333, 1.6667], atol=1e-4)
    # Descending order: the tasks reversed.
    np.testing.assert_allclose(direction("pcgrad", THREE[::-1], shuffle=False), [0.1667, 0.1667, 1.3333], atol=1e-4)


def test_no_conflict_is_the_plain_sum():
    np.testing.assert_allclose(coefficients("pcgrad", np.abs(random_gradients(5))), 1.0, atol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_fixed_order(count):
    for seed in range(3):
        gradients = random_gradients(count, seed)
        expected = oracle(gradients).sum(0)
        found = direction("pcgrad", gradients, shuffle=False)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_no_gradient_is_projected_on_its_own():
    """Projected on the two others the third points against itself, and a loop over all tasks would project it again."""
    gradients = np.array([[-0.8, 0.6], [-0.8, -0.6], [1.0, 0.0]])
    expected = oracle(gradients)
    np.testing.assert_allclose(expected[2], [-0.1008, 0.1344])
    np.testing.assert_allclose(direction("pcgrad", gradients, shuffle=False), expected.sum(0), atol=1e-5)


def test_random_orders_are_orders_and_all_occur():
    expected = {order: oracle(THREE, order).sum(0) for order in itertools.permutations(range(3))}
    method, seen = prepared("pcgrad", 3, seed=4), set()
    for step in range(40):
        method.step.assign(step)
        d = coefficients_of(method, THREE) @ THREE
        fits = {order for order, other in expected.items() if np.allclose(d, other, atol=1e-5)}
        assert fits
        seen |= fits
    assert len(seen) == 6


def test_random_order_follows_from_seed_and_step():
    def sequence(seed):
        method, found = prepared("pcgrad", 3, seed=seed), []
        for step in range(12):
            method.step.assign(step)
            found.append(coefficients_of(method, THREE))
        return np.array(found)

    np.testing.assert_array_equal(sequence(1), sequence(1))
    assert np.any(sequence(1) != sequence(2))


def test_the_means_inactive_task_does_not_count():
    gradients = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    c = coefficients("pcgrad", gradients, active=[1, 1, 0], reduction="mean")
    np.testing.assert_allclose(c[:2], 0.5, atol=1e-6)


def test_opposed_gradients_leave_nothing():
    np.testing.assert_allclose(direction("pcgrad", [[1.0, 0.0], [-3.0, 0.0]]), 0, atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="`reduction` must be one of the known values. Received: reduction='max'"):
        PCGrad(reduction="max")
    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0. Received: seed=-1"):
        PCGrad(seed=-1)
