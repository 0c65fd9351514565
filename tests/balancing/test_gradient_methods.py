"""The methods that need the gradients themselves, on gradients given as rows: formulas in NumPy, goldens, guards."""

import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.balancing import MGDA, MGDAUB, DualBalancing, ExcessMTL, GradDrop, GradNorm, MetaBalance, MoCo
from mtl_zoo.balancing.moco import project_on_simplex

# The toy problem: g_1 = (1, 0), g_2 = (-1, 1), losses 1 and 4.
TOY = np.array([[1.0, 0.0], [-1.0, 1.0]], "float32")
TOY_LOSSES = np.array([1.0, 4.0], "float32")
ONES = np.ones(2, "float32")


def prepared(method, count=2, sizes=(2,)):
    method.sizes = sizes
    method.prepare(tuple("abcdef"[:count]), ("binary",) * count)
    return method


def direction(method, gradients, losses=None, active=None, sizes=None):
    """One step, as the training step takes it: the direction and the coefficients, as arrays."""
    gradients = np.asarray(gradients, "float32")
    count = len(gradients)
    active = np.ones(count, "float32") if active is None else np.asarray(active, "float32")
    losses = np.ones(count, "float32") if losses is None else np.asarray(losses, "float32")
    given = (gradients * active[:, None], losses * active, active)
    found = method.combine(*map(ops.convert_to_tensor, given), sizes or (gradients.shape[1],))
    method.record(found[1], given[2])
    return [ops.convert_to_numpy(x) for x in found]


def array(variable):
    return ops.convert_to_numpy(variable)


# GradNorm.


def grad_norm_step(method, norms, losses, active=ONES):
    losses, active = np.asarray(losses, "float32"), np.asarray(active, "float32")
    gram = np.diag(np.square(np.asarray(norms, "float32"))) * active[:, None]
    return array(method.coefficients(gram, losses, active))


def test_grad_norm_golden():
    method = prepared(GradNorm(learning_rate=0.025))
    method.first_losses.assign([1.0, 1.0])
    assert grad_norm_step(method, (2, 1), (0.5, 1.0)).tolist() == [1, 1]  # the weights as they were
    # r = (2/3, 4/3), targets (.816497, 2.309401): the slopes are +2 and -1.
    moved = np.array([1 - 0.025 * 2, 1 + 0.025])
    np.testing.assert_allclose(array(method.weights_now), 2 * moved / moved.sum(), rtol=1e-6)


def test_grad_norm_against_numpy():
    rng = np.random.default_rng(0)
    method = prepared(GradNorm(alpha=0.7, learning_rate=0.05), 3)
    weights, first = np.ones(3), None
    for _ in range(4):
        norms, losses = rng.uniform(0.5, 2, 3), rng.uniform(0.2, 3, 3)
        first = losses if first is None else first
        np.testing.assert_allclose(grad_norm_step(method, norms, losses, np.ones(3)), weights, rtol=1e-5)
        ratios = losses / first / np.mean(losses / first)
        level = weights * norms
        slopes = np.sign(level - level.mean() * ratios**0.7) * norms
        weights = weights - 0.05 * slopes
        weights *= 3 / weights.sum()


def test_grad_norm_equal_norms_are_a_fixed_point():
    method = prepared(GradNorm(alpha=0.0, learning_rate=0.01))
    for _ in range(300):
        grad_norm_step(method, (2, 1), (1, 1))
    weights = array(method.weights_now)
    assert weights[0] * 2 == pytest.approx(weights[1], rel=0.06)


def test_grad_norm_leaves_an_absent_task_and_keeps_weights_positive():
    method = prepared(GradNorm(learning_rate=5.0))
    grad_norm_step(method, (2, 0), (1, 0), np.array([1.0, 0.0], "float32"))
    assert array(method.first_losses).tolist() == [1, 0]  # its first loss is still to come
    grad_norm_step(method, (2, 1), (1, 3))
    assert array(method.first_losses).tolist() == [1, 3]
    weights = array(method.weights_now)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(2)


# MGDA-UB is MGDA on other gradients.


def test_mgda_ub_weighs_as_mgda_does():
    gram = TOY @ TOY.T
    for normalization in (None, "loss"):
        a = MGDA(normalization).coefficients(gram, TOY_LOSSES, ONES)
        b = MGDAUB(normalization).coefficients(gram, TOY_LOSSES, ONES)
        np.testing.assert_array_equal(array(a), array(b))
    np.testing.assert_allclose(array(MGDAUB().coefficients(gram, TOY_LOSSES, ONES)), [0.6, 0.4], atol=1e-6)


# GradDrop.


def mix(method, gradients, values, active=None):
    """`gradients` (tasks, batch, features)."""
    gradients = np.asarray(gradients, "float32")
    active = np.ones(len(gradients), "float32") if active is None else np.asarray(active, "float32")
    found = method.mix(
        ops.convert_to_tensor(gradients * active[:, None, None]),
        ops.convert_to_tensor(np.asarray(values, "float32")),
        ops.ones(len(gradients)),
        ops.convert_to_tensor(active),
    )
    method.step.assign_add(1.0)
    return array(found)


def test_grad_drop_golden_in_expectation():
    method = prepared(GradDrop(seed=3))
    draws = np.stack([mix(method, TOY[:, None], np.ones((1, 2)))[0] for _ in range(400)])
    # P = (1/2, 1): the first feature is +1 or -1, the second always 1.
    assert set(draws[:, 0].tolist()) == {1.0, -1.0}
    np.testing.assert_allclose(draws.mean(0), [0, 1], atol=0.12)
    np.testing.assert_array_equal(draws[:, 1], 1)


def test_grad_drop_against_numpy():
    rng = np.random.default_rng(1)
    gradients, values = rng.normal(size=(3, 5, 4)), rng.normal(size=(5, 4))
    leak = {"a": 0.0, "b": 0.3, "c": 1.0}
    method = prepared(GradDrop(leak=leak, seed=7), 3)
    drawn = array(keras.random.uniform((4,), seed=method.step_seed(7)))
    signed = (np.sign(values)[None] * gradients).sum(1)
    positive = 0.5 * (1 + signed.sum(0) / np.abs(signed).sum(0))
    passes = np.where(signed > 0, positive > drawn, positive < drawn)
    assert 0 < passes.sum() < passes.size
    leaks = np.array([0, 0.3, 1.0])[:, None]
    expected = ((leaks + (1 - leaks) * passes)[:, None] * gradients).sum(0)
    np.testing.assert_allclose(mix(method, gradients, values), expected, atol=1e-5)


def test_grad_drop_agreement_passes_whole():
    gradients = np.abs(np.random.default_rng(2).normal(size=(2, 3, 4)))
    np.testing.assert_allclose(mix(prepared(GradDrop()), gradients, np.ones((3, 4))), gradients.sum(0), rtol=1e-6)
    np.testing.assert_allclose(mix(prepared(GradDrop()), -gradients, np.ones((3, 4))), -gradients.sum(0), rtol=1e-6)
    one = prepared(GradDrop(), 1)
    np.testing.assert_allclose(mix(one, gradients[:1], np.zeros((3, 4))), gradients[0], rtol=1e-6)


# MetaBalance.


def test_metabalance_golden():
    found, _ = direction(prepared(MetaBalance()), [[3, 4], [0.3, 0.4]])
    np.testing.assert_allclose(found, [3 + 2.19, 4 + 2.92], rtol=1e-6)


def test_metabalance_by_tensor_against_numpy():
    rng = np.random.default_rng(0)
    sizes, ends = (2, 3, 1), [2, 5]
    method = prepared(MetaBalance(target="b", relax=0.4, beta=0.8), 3, sizes)
    norms = np.zeros((3, 3))
    for _ in range(3):
        gradients = rng.normal(size=(3, 6))
        found, coefficients = direction(method, gradients, sizes=sizes)
        parts = np.split(gradients, ends, axis=1)
        norms = 0.8 * norms + 0.2 * np.stack([np.linalg.norm(p, axis=1) for p in parts], 1)
        scales = 0.4 * norms[1] / norms + 0.6
        expected = np.concatenate([(scales[:, i, None] * p).sum(0) for i, p in enumerate(parts)])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        whole = np.linalg.norm(norms, axis=1)
        np.testing.assert_allclose(coefficients, 0.4 * whole[1] / whole + 0.6, rtol=1e-5)


def test_metabalance_at_its_ends():
    gradients = [[3, 4], [0.3, 0.4]]
    np.testing.assert_allclose(direction(prepared(MetaBalance(relax=0)), gradients)[0], [3.3, 4.4], rtol=1e-6)
    np.testing.assert_allclose(direction(prepared(MetaBalance(relax=1)), gradients)[0], [6, 8], rtol=1e-6)


def test_metabalance_tensors_that_a_task_does_not_touch():
    # The second tensor is not the target's, the third not the auxiliary's: nothing is scaled, nothing is NaN.
    method = prepared(MetaBalance(relax=1), 2, (1, 1, 1))
    found, _ = direction(method, [[4, 0, 5], [2, 3, 0]], sizes=(1, 1, 1))
    np.testing.assert_allclose(found, [8, 3, 5], rtol=1e-6)


def test_metabalance_keeps_the_norms_of_an_absent_task():
    method = prepared(MetaBalance())
    direction(method, [[3, 4], [0.3, 0.4]])
    before = array(method.norms)
    found, coefficients = direction(method, [[3, 4], [0.3, 0.4]], active=[0, 1])
    assert array(method.norms)[0] == before[0]
    assert coefficients[0] == 0
    assert np.linalg.norm(found) > 0.5  # still brought towards the target's size


def test_metabalance_refuses_an_unknown_target():
    with pytest.raises(ValueError, match=r"`target` must be one of .*Received: target='z'"):
        prepared(MetaBalance(target="z"))


# MoCo.


def test_projection_on_the_simplex():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.normal(size=4).astype("float32") * 2
        found = array(project_on_simplex(ops.convert_to_tensor(x), ops.ones(4)))
        assert found.sum() == pytest.approx(1, abs=1e-5)
        assert (found >= 0).all()
        for other in rng.dirichlet(np.ones(4), 50):
            assert np.sum((x - found) ** 2) <= np.sum((x - other) ** 2) + 1e-5
    some = array(project_on_simplex(ops.convert_to_tensor([9.0, 0.4, 0.2]), ops.convert_to_tensor([0.0, 1.0, 1.0])))
    np.testing.assert_allclose(some, [0, 0.6, 0.4], atol=1e-6)
    assert array(project_on_simplex(ops.ones(2), ops.zeros(2))).tolist() == [0, 0]


def test_moco_golden_is_mgda_and_not_that_of_a_softmax():
    method = prepared(MoCo(beta=1.0, gamma=0.05, gamma_decay=0.0))
    for _ in range(200):
        found, weights = direction(method, TOY)
    np.testing.assert_allclose(weights, [0.6, 0.4], atol=1e-4)
    np.testing.assert_allclose(found, [0.2, 0.4], atol=1e-4)


def test_moco_against_numpy():
    rng = np.random.default_rng(0)
    method = prepared(MoCo(rho=0.1))
    averages, shares = np.zeros((2, 2)), np.array([0.5, 0.5])
    for t in range(1, 5):
        gradients = rng.normal(size=(2, 2))
        averages += 0.5 / t**0.5 * (gradients - averages)
        x = shares - 0.1 / t**0.5 * (averages @ averages.T + 0.1 * np.eye(2)) @ shares
        first = np.clip((x[0] - x[1] + 1) / 2, 0, 1)  # two tasks: the simplex is a line
        shares = np.array([first, 1 - first])
        found, weights = direction(method, gradients)
        np.testing.assert_allclose(weights, shares, atol=1e-5)
        np.testing.assert_allclose(found, shares @ averages, atol=1e-5)


def test_moco_an_absent_task_waits():
    method = prepared(MoCo())
    direction(method, TOY)
    averages, shares = array(method.averages), array(method.shares)
    found, weights = direction(method, TOY, active=[1, 0])
    np.testing.assert_array_equal(array(method.averages)[1], averages[1])
    assert array(method.shares)[1] == shares[1]
    assert array(method.shares).sum() == pytest.approx(1)
    assert weights.tolist() == [1, 0]
    np.testing.assert_allclose(found, array(method.averages)[0])


# DB-MTL.


def test_db_mtl_golden():
    found, coefficients = direction(prepared(DualBalancing(beta=0)), TOY, TOY_LOSSES)
    np.testing.assert_allclose(found, [0.292893, 0.707107], atol=1e-5)
    np.testing.assert_allclose(coefficients, [1, 2.828427 / 4], atol=1e-5)


def test_db_mtl_against_numpy():
    rng = np.random.default_rng(0)
    method, averages = prepared(DualBalancing(beta=0.6, decay=0.5)), np.zeros((2, 2))
    for t in range(1, 4):
        gradients, losses = rng.normal(size=(2, 2)), rng.uniform(0.1, 2, 2)
        beta = 0.6 / t**0.5
        averages = beta * averages + (1 - beta) * gradients / losses[:, None]
        norms = np.linalg.norm(averages, axis=1)
        found, _ = direction(method, gradients, losses)
        np.testing.assert_allclose(found, (norms.max() / norms) @ averages, rtol=1e-4)


def test_db_mtl_does_not_see_a_losss_scale():
    a, _ = direction(prepared(DualBalancing()), TOY, TOY_LOSSES)
    b, _ = direction(prepared(DualBalancing()), TOY * [[50], [1]], TOY_LOSSES * [50, 1])
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_db_mtl_an_absent_task_waits():
    method = prepared(DualBalancing())
    direction(method, TOY, TOY_LOSSES)
    before = array(method.averages)
    found, coefficients = direction(method, TOY, TOY_LOSSES, active=[1, 0])
    np.testing.assert_array_equal(array(method.averages)[1], before[1])
    assert coefficients[1] == 0
    assert found[1] == 0  # of the second task's direction, nothing


# ExcessMTL.


def test_excess_mtl_golden():
    method = prepared(ExcessMTL())
    found, weights = direction(method, TOY)
    np.testing.assert_allclose(array(method.first_excess), [1, 2], atol=1e-5)
    np.testing.assert_allclose(found, [0, 1], atol=1e-6)
    for _ in range(3):
        _, weights = direction(method, TOY)
    np.testing.assert_allclose(weights, 1, atol=1e-6)


def test_excess_mtl_against_numpy():
    rng = np.random.default_rng(0)
    method = prepared(ExcessMTL(learning_rate=0.5))
    squares, weights, first = np.zeros((2, 2)), np.ones(2), None
    for _ in range(4):
        gradients = rng.normal(size=(2, 2))
        squares += gradients**2
        excess = (gradients**2 / np.sqrt(squares)).sum(1)
        if first is None:
            first = excess
        else:
            weights = weights * np.exp(0.5 * excess / first)
            weights *= 2 / weights.sum()
        found, given = direction(method, gradients)
        np.testing.assert_allclose(given, weights, rtol=1e-4)
        np.testing.assert_allclose(found, weights @ gradients, rtol=1e-4, atol=1e-5)


def test_excess_mtl_a_task_that_comes_late():
    method = prepared(ExcessMTL())
    direction(method, TOY, active=[1, 0])
    assert array(method.first_excess)[1] == 0
    _, weights = direction(method, TOY)
    assert array(method.first_excess)[1] == pytest.approx(2, abs=1e-5)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(2)


# What all of them refuse.

WRONG = [
    (GradNorm, {"alpha": -1}, "`alpha` must be"),
    (GradNorm, {"learning_rate": 0}, "`learning_rate` must be"),
    (GradNorm, {"update_every": 0}, "`update_every` must be"),
    (MGDAUB, {"normalization": "max"}, "`normalization` must be"),
    (GradDrop, {"leak": 1.5}, "`leak` must be"),
    (GradDrop, {"leak": {"a": -1}}, r"`leak\['a'\]` must be"),
    (GradDrop, {"seed": -1}, "`seed` must be"),
    (MetaBalance, {"relax": 1.1}, "`relax` must be"),
    (MetaBalance, {"beta": 1}, "`beta` must be"),
    (MoCo, {"beta": 0}, "`beta` must be"),
    (MoCo, {"gamma": 0}, "`gamma` must be"),
    (MoCo, {"rho": -1}, "`rho` must be"),
    (MoCo, {"beta_decay": -1}, "`beta_decay` must be"),
    (MoCo, {"gamma_decay": -1}, "`gamma_decay` must be"),
    (DualBalancing, {"beta": 1}, "`beta` must be"),
    (DualBalancing, {"decay": -1}, "`decay` must be"),
    (ExcessMTL, {"learning_rate": 0}, "`learning_rate` must be"),
]


@pytest.mark.parametrize(("cls", "options", "error"), WRONG)
def test_refuses(cls, options, error):
    with pytest.raises(ValueError, match=error):
        cls(**options)


def test_grad_drop_refuses_names_that_are_no_losses():
    with pytest.raises(ValueError, match=r"`leak` must name every loss .* unknown: \['z'\], missing: \['a', 'b'\]"):
        prepared(GradDrop(leak={"z": 0.5}))
