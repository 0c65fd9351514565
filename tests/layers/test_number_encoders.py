"""Layers that make vectors of numbers: against NumPy, and what they refuse."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.layers import PeriodicEncoder, PiecewiseLinearEncoder

BOUNDARIES = [(-2.0, -0.5, 0.0, 3.0), (1.0, 2.0), (0.0, 0.25, 0.5)]
NUMBERS = np.array([[-2.0, 1.5, 0.25], [-1.25, 1.0, 0.1], [2.0, 9.0, -7.0], [99.0, 2.0, 0.5]], "float32")


def piecewise():
    layer = PiecewiseLinearEncoder(BOUNDARIES, dim=5)
    layer.build((None, 3))
    layer.bias.assign(np.arange(15).reshape(3, 5))
    return layer


def filled(x, boundaries):
    """How full each piece is, in a loop over the pieces."""
    return [min(max((x - low) / (high - low), 0.0), 1.0) for low, high in itertools.pairwise(boundaries)]


def test_piecewise_linear_against_numpy():
    layer = piecewise()
    kernel, bias = (ops.convert_to_numpy(weight) for weight in layer.weights)
    expected = np.zeros((4, 3, 5))
    for row in range(4):
        for i, boundaries in enumerate(BOUNDARIES):
            v = np.array([NUMBERS[row, i], *filled(NUMBERS[row, i], boundaries)])
            expected[row, i] = v @ kernel[i, : len(v)] + bias[i]
    np.testing.assert_allclose(ops.convert_to_numpy(layer(NUMBERS)), expected, atol=1e-5)


def test_pieces_outside_of_the_boundaries_are_those_of_the_nearest_end():
    layer = piecewise()
    ends = np.array([[-2.0, 1.0, 0.0], [3.0, 2.0, 0.5]], "float32")
    far = np.array([[-1e6, -50.0, -0.1], [1e6, 50.0, 0.6]], "float32")
    pieces = [ops.convert_to_numpy(layer.pieces(x)) for x in (far, ends)]
    np.testing.assert_array_equal(*pieces)


def test_between_boundaries_a_vector_is_the_mean_of_its_neighbours():
    layer = piecewise()
    of = {x: ops.convert_to_numpy(layer(np.full((1, 3), x, "float32")))[0, 0] for x in (0.5, 1.0, 1.5, -0.25, 0.25)}
    np.testing.assert_allclose(of[1.0], (of[0.5] + of[1.5]) / 2, atol=1e-5)
    assert np.abs((of[-0.25] + of[0.25]) / 2 - ops.convert_to_numpy(layer(np.zeros((1, 3))))[0, 0]).max() > 1e-3


def test_periodic_against_numpy():
    layer = PeriodicEncoder(numbers=3, dim=5, frequencies=4, scale=0.5)
    found = ops.convert_to_numpy(layer(NUMBERS))
    frequency, kernel, bias = (ops.convert_to_numpy(weight) for weight in layer.weights)
    for i in range(3):
        x = NUMBERS[:, i : i + 1]
        v = np.concatenate([x, np.sin(2 * np.pi * x * frequency[i]), np.cos(2 * np.pi * x * frequency[i])], axis=1)
        np.testing.assert_allclose(found[:, i], np.maximum(v @ kernel[i] + bias[i], 0), atol=2e-4)


@pytest.mark.parametrize("make", [piecewise, lambda: PeriodicEncoder(3, dim=5, frequencies=2)])
def test_config(make):
    layer = make()
    expected = ops.convert_to_numpy(layer(NUMBERS))
    again = type(layer).from_config(layer.get_config())
    assert tuple(again.compute_output_shape((7, 3))) == (7, 3, 5)
    again.build((None, 3))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(NUMBERS)), expected)


def test_half_precision():
    layer = PiecewiseLinearEncoder(BOUNDARIES, dim=5, dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer(NUMBERS).dtype) == "float16"
    assert np.isfinite(ops.convert_to_numpy(layer(NUMBERS))).all()


@pytest.mark.parametrize(
    "wrong", [(1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (0.0, 1e-60), (0.0, 1e-40, 1.0), (-3e38, 3e38)]
)
def test_boundaries_increase(wrong):
    with pytest.raises(ValueError, match="`boundaries` must be two or more finite numbers of 32 bits, increasing"):
        PiecewiseLinearEncoder([wrong])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PiecewiseLinearEncoder([(0, 1)], dim=0), "`dim` must be a whole number"),
        (lambda: PeriodicEncoder(0), "`numbers` must be a whole number"),
        (lambda: PeriodicEncoder(1, dim=0), "`dim` must be a whole number"),
        (lambda: PeriodicEncoder(1, frequencies=0), "`frequencies` must be a whole number"),
        (lambda: PeriodicEncoder(1, scale=0.0), "`scale` must be"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
