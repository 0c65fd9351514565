"""Aligned-MTL: B makes the gradients orthogonal and of one length."""

import numpy as np
import pytest
from grams import COUNTS, TOY, coefficients, direction, prepared, random_gradients

from mtl_zoo.balancing import AlignedMTL


def matrix(gradients):
    """B, column by column: c is linear in the preferences."""
    count = len(gradients)
    plain = coefficients("aligned_mtl", gradients)
    columns = []
    for k in range(count):
        preferences = {f"task_{j}": 1.0 + (j == k) for j in range(count)}
        columns.append(coefficients("aligned_mtl", gradients, preferences=preferences) - plain)
    return np.stack(columns, axis=1)


def test_golden():
    np.testing.assert_allclose(coefficients("aligned_mtl", TOY), [1.105573, 0.829180], atol=1e-5)
    np.testing.assert_allclose(direction("aligned_mtl", TOY), [0.276393, 0.829180], atol=1e-5)
    b = matrix(TOY)
    np.testing.assert_allclose(b, [[0.829180, 0.276393], [0.276393, 0.552786]], atol=1e-5)
    np.testing.assert_allclose(b @ TOY @ TOY.T @ b.T, 0.381966 * np.eye(2), atol=1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_aligned_rows(count):
    gradients = random_gradients(count, count, spread=0.4)
    gram = gradients @ gradients.T
    least = np.linalg.eigvalsh(gram)[0]
    b = matrix(gradients)
    np.testing.assert_allclose(b @ gram @ b.T / least, np.eye(count), atol=5e-3)


def test_orthonormal_gradients_stay():
    np.testing.assert_allclose(coefficients("aligned_mtl", np.eye(3)), 1, atol=1e-5)


def test_dependent_gradients_use_the_smallest_eigenvalue_that_is_not_zero():
    gradients = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Eigenvalues 2 and 1; along the first, (1, 1, 0) / sqrt(2), B is 1 / sqrt(2).
    np.testing.assert_allclose(coefficients("aligned_mtl", gradients), [0.5**0.5, 0.5**0.5, 1], atol=1e-5)


def test_opposed_gradients_give_no_step():
    np.testing.assert_allclose(direction("aligned_mtl", [[1.0, 0.0], [-1.0, 0.0]]), 0, atol=1e-5)


@pytest.mark.tensorflow
def test_a_short_gradient_beside_dependent_ones_counts():
    gradients = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1e-4]])
    # Eigenvalues 2 and 1e-8; B is (1e-4 / sqrt(2)) / 2 in the first two rows and columns, and 1 in the last.
    np.testing.assert_allclose(coefficients("aligned_mtl", gradients), [0.5**0.5 * 1e-4] * 2 + [1], rtol=1e-3)


def test_preferences():
    with pytest.raises(ValueError, match=r"`preferences\['click'\]` must be a finite number and > 0"):
        AlignedMTL({"click": 0.0})
    with pytest.raises(ValueError, match="`preferences` must be a dict by loss name. Received: preferences=2"):
        AlignedMTL(2)
    with pytest.raises(ValueError, match="`preferences` must name every loss of the model and nothing else"):
        prepared("aligned_mtl", 2, preferences={"task_0": 1.0})
