"""A task's unit does not decide whether its gradient counts: closed forms for two tasks whose scales differ."""

import numpy as np
import pytest
from grams import coefficients
from keras import ops

from mtl_zoo.balancing import DualBalancing, ExcessMTL

SCALES = (1.0, 1e-2, 1e-3, 1e-4, 1e-6)
# c for two orthogonal gradients of length 1 and r.
ORTHOGONAL = {
    "aligned_mtl": lambda r: (r, 1.0),
    "fair_grad": lambda r: (1.0, r ** (-4 / 3)),
    "gradvac": lambda r: (1.0, 1.0),
    "imtl_g": lambda r: (r / (1 + r), 1 / (1 + r)),
    "mgda": lambda r: (r**2 / (1 + r**2), 1 / (1 + r**2)),
    "nash_mtl": lambda r: (1.0, 1 / r),
    "pcgrad": lambda r: (1.0, 1.0),
    "up_grad": lambda r: (0.5, 0.5),
}
OPTIONS = {"fair_grad": {"alpha": 2.0, "max_norm": None}, "nash_mtl": {"max_norm": None}}


# fault 17
@pytest.mark.tensorflow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_orthogonal_gradients_of_different_lengths(name, scale):
    lengths = np.array([1.0, scale])
    pulls = coefficients(name, np.diag(lengths), **OPTIONS.get(name, {})) * lengths
    expected = ORTHOGONAL[name](scale) * lengths
    # In float32 MGDA cannot tell a pull that is a ten-thousandth of the other from none.
    np.testing.assert_allclose(pulls, expected, rtol=2e-3, atol=2e-4 * expected.max() if name == "mgda" else 0)


# fault 17
@pytest.mark.tensorflow
@pytest.mark.parametrize("scale", SCALES)
def test_aligned_mtl_of_oblique_gradients(scale):
    gradients = np.array([[1.0, 0.0, 0.0], [0.6 * scale, 0.8 * scale, 0.0], [0.3, -0.4, 0.5]])
    values, vectors = np.linalg.eigh(gradients @ gradients.T)
    expected = np.sqrt(values[0]) * (vectors / np.sqrt(values)) @ vectors.T @ np.ones(3)
    np.testing.assert_allclose(coefficients("aligned_mtl", gradients), expected, rtol=5e-3)


def two_steps(method, scale):
    """The coefficients and the direction of a second step; the second task's gradients and loss are of this scale."""
    method.sizes = (3,)
    method.prepare(("a", "b"), ("binary", "binary"))
    unit, ones = np.array([1.0, scale], "float32"), np.ones(2, "float32")
    rng = np.random.default_rng(0)
    for _ in range(2):
        gradients = rng.normal(size=(2, 3)).astype("float32") * unit[:, None]
        direction, given = method.direction(*[ops.convert_to_tensor(x) for x in (gradients, unit, ones)], (3,))
    return ops.convert_to_numpy(given), ops.convert_to_numpy(direction)


# fault 17
@pytest.mark.parametrize("scale", SCALES)
def test_growth_of_weights_does_not_depend_on_the_unit(scale):
    expected, _ = two_steps(ExcessMTL(learning_rate=0.5), 1.0)
    found, _ = two_steps(ExcessMTL(learning_rate=0.5), scale)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


# fault 17
@pytest.mark.parametrize("scale", SCALES)
def test_dual_balancing_does_not_depend_on_the_unit(scale):
    _, expected = two_steps(DualBalancing(), 1.0)
    _, found = two_steps(DualBalancing(), scale)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
