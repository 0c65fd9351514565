"""The toy problem inside of a real model's step: every method takes the direction that its formula gives by hand.

g_1 = (1, 0), g_2 = (-1, 1), losses 1 and 4, and so A = ((1, -1), (-1, 2)), a cosine of -1 / sqrt(2), a sum of (0, 1).
"""

import numpy as np
import pytest
from linear_case import take_step

from mtl_zoo.balancing import create_balancing, list_balancing

pytestmark = pytest.mark.tensorflow

TOY, LOSSES = [[1.0, 0.0], [-1.0, 1.0]], [1.0, 4.0]

# What the shared weight loses at the first step of SGD(1.0). Where a method has a past, the first step shows how it
# starts: weights of 1 (dwa, grad_norm, excess_mtl, imtl_l), the sum of log losses (stch), half the sum (uncertainty).
DIRECTIONS = {
    "static": ({"weights": {"a": 3.0, "b": 0.5}}, (2.5, 0.5)),
    "scheduled": ({"initial": {"a": 1.0, "b": 2.0}, "gamma": {"a": 0.5, "b": 0.5}}, (-1, 2)),
    "data_based": ({"frequencies": {"a": 0.3, "b": 0.1}}, (-1, 1.5)),
    "uncertainty": ({}, (0, 0.5)),
    "imtl_l": ({}, (0, 1)),
    "dwa": ({}, (0, 1)),
    "gls": ({}, (0.75, 0.25)),
    "stch": ({}, (0.75, 0.25)),
    "loss_ratio": ({}, (0.75, 0.25)),
    "famo": ({}, (0.6, 0.2)),
    "grad_norm": ({}, (0, 1)),
    "mgda": ({}, (0.2, 0.4)),
    "mgda_ub": ({}, (0.2, 0.4)),
    "pcgrad": ({}, (0.5, 1.5)),
    "gradvac": ({}, (0.5, 1.5)),
    "cagrad": ({"rescale": 0}, (0.2, 0.5)),
    "imtl_g": ({}, (0.171573, 0.414214)),
    "nash_mtl": ({"max_norm": None}, (0.541196, 1.306563)),
    "aligned_mtl": ({}, (0.276393, 0.829180)),
    "metabalance": ({}, (0.205025, 0.794975)),
    "moco": ({"beta": 1.0, "gamma": 0.05}, (0.025, 0.4875)),
    "db_mtl": ({"beta": 0.0}, (0.292893, 0.707107)),
    "excess_mtl": ({}, (0, 1)),
    "up_grad": ({}, (0.25, 0.75)),
}
# Random, or without a closed form: below.
OTHERS = ("rlw", "grad_drop", "fair_grad")


def test_no_method_is_missing():
    assert sorted([*DIRECTIONS, *OTHERS]) == list_balancing()


@pytest.mark.parametrize("name", sorted(DIRECTIONS))
def test_direction(name):
    options, expected = DIRECTIONS[name]
    direction, _ = take_step(create_balancing(name, **options), TOY, LOSSES)
    np.testing.assert_allclose(direction, expected, atol=2e-5)


def test_the_plain_sum():
    direction, _ = take_step(None, TOY, LOSSES)
    np.testing.assert_allclose(direction, [0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cagrad", {"c": 0.0}, (0, 0.5)),
        ("cagrad", {"c": 1.0, "rescale": 0}, (0.4, 0.8)),
        ("pcgrad", {"reduction": "mean"}, (0.25, 0.75)),
        ("up_grad", {"reduction": "sum"}, (0.5, 1.5)),
        ("metabalance", {"relax": 0.0}, (0, 1)),
        ("famo", {"reevaluates": True}, (0.6, 0.2)),
        ("stch", {"form": "loss", "mu": 0.1, "preferences": {"a": 0.5, "b": 0.5}}, (-0.5, 0.5)),
        ("uncertainty", {"form": "classification"}, (0, 1)),
        ("uncertainty", {"form": "revised"}, (0, 0.5)),
        ("nash_mtl", {}, (0.382683, 0.923880)),  # cut to a norm of 1
    ],
)
def test_direction_with_other_options(name, options, expected):
    direction, _ = take_step(create_balancing(name, **options), TOY, LOSSES)
    np.testing.assert_allclose(direction, expected, atol=2e-5)


def test_random_weights():
    direction, weights = take_step(create_balancing("rlw"), TOY, LOSSES)
    assert weights.sum() == pytest.approx(1, abs=1e-6) and weights[0] != weights[1]
    np.testing.assert_allclose(direction, weights @ TOY, atol=1e-6)


def test_random_signs():
    found = {tuple(take_step(create_balancing("grad_drop", seed=seed), TOY, LOSSES)[0].round(5)) for seed in range(5)}
    assert found == {(1, 1), (-1, 1)}


def test_fairness():
    _, c = take_step(create_balancing("fair_grad", alpha=2.0, max_norm=None), TOY, LOSSES)
    gram = np.array(TOY) @ np.array(TOY).T
    np.testing.assert_allclose(gram @ c, c**-0.5, rtol=1e-4)
