"""ESCM2-DR: double robustness, where gradients go, and the faults of public implementations."""

import numpy as np
import pytest
from toys import (
    CLICK,
    CONVERSION,
    build,
    compile_eagerly,
    copy_shared_weights,
    gradients,
    head_losses,
    inputs,
    labels,
    loss_gradients,
    moved,
    outputs,
    set_logit,
)

from mtl_zoo.heads import DoublyRobust

NAN = float("nan")


def logit(p):
    return float(np.log(p / (1 - p)))


def softplus_inverse(d):
    return float(np.log(np.expm1(d)))


def bce(y, z):
    return np.logaddexp(0, np.where(np.asarray(y) == 1, -1.0, 1.0) * np.asarray(z, "float64"))


def risk(y, click, conversion, imputation, weights=None, **options):
    logits = {"click": click, "conversion": conversion, "click_and_conversion": click}
    logits["conversion_imputation"] = imputation
    return head_losses(DoublyRobust(**options), y, logits, weights)["conversion"]


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(
    "o_hat, d_hat, expected", [(0.25, 0.5, 0.66), (0.2, 0.5, 0.7), (0.25, 0.7, 0.7), (0.9, 0.7, 0.7)]
)
def test_expectation_golden(o_hat, d_hat, expected, joint):
    """Click rate .2, error .7: right if either the propensity or the imputation is. The squares come on top."""
    b = [-np.log(np.expm1(0.7))] * 2
    y = {"click": [1, 0], "conversion": [1, NAN]}
    weights = {"conversion": np.array([0.2, 0.8])}
    found = risk(y, [logit(o_hat)] * 2, b, [softplus_inverse(d_hat)] * 2, weights, joint=joint)
    squares = 0.2 / o_hat * (0.7 - d_hat) ** 2
    assert found - squares == pytest.approx(expected, abs=1e-6)


def test_risk_against_numpy():
    """Errors from logits, imputations above 1, weights, and rows of which too little is known."""
    click, conversion = np.array([1, 1, 0, 0, 1, NAN]), np.array([1, 0, NAN, 1, NAN, 1])
    a, b = np.array([-1.0, 0.5, 2.0, -9.0, 0.1, 0.2]), np.array([-40.0, -0.7, 3.0, 0.4, 0.5, 0.6])
    imputation = np.array([5.0, 30.0, -3.0, 2.0, 1.0, 1.0])
    weights = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    counts = np.array([1, 1, 1, 1, 0, 0]) * weights
    d = np.logaddexp(0, imputation)
    w = (click == 1) * np.minimum(1 + np.exp(-a), 100)
    e = bce(conversion, b) - d
    expected = (counts * (d + w * e + w * e**2)).sum() / counts.sum()
    found = risk({"click": click, "conversion": conversion}, a, b, imputation, {"conversion": weights})
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("a", [-4.0, -9.0, -100.0])
def test_no_row_weighs_more_than_the_bound(a):
    y = {"click": [1], "conversion": [1]}
    error = np.log(2) - 0.5
    found = risk(y, [a], [0.0], [softplus_inverse(0.5)], min_propensity=0.02)
    assert found == pytest.approx(0.5 + 50 * error + 50 * error**2, rel=1e-5)


def constant_model(**options):
    model = build("escm2_dr", (CLICK, CONVERSION), min_propensity=0.1, **options)
    for tower, value in (("click", logit(0.25)), ("conversion", 0.4), ("conversion_imputation", 0.3)):
        set_logit(model, tower, value)
    return compile_eagerly(model)


@pytest.mark.parametrize("joint", [True, False])
def test_gradients_are_those_of_the_formula(joint):
    model = constant_model(joint=joint)
    o = (np.arange(64) % 4 == 0).astype("float32")
    y = {"click": o, "conversion": o}
    grads = gradients(model, lambda m: m.task_losses(y, m(inputs()))["conversion"])
    w, d = o / 0.25, np.logaddexp(0, 0.3)
    e = bce(o, 0.4) - d
    through_d = -2 * w * e + ((1 - w) if joint else 0.0)
    through_delta = w + (2 * w * e if joint else 0.0)
    slope_d, slope_delta = 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(-0.4)) - 1
    assert grads["conversion_imputation_head/bias"][0] == pytest.approx(np.mean(through_d) * slope_d, rel=1e-4)
    assert grads["conversion_head/bias"][0] == pytest.approx(np.mean(through_delta) * slope_delta, rel=1e-4)
    assert not np.any(grads["click_head/bias"])


@pytest.mark.parametrize("joint", [True, False])
def test_the_risk_moves_nothing_of_the_click(joint):
    options = {"backbone": "single_task", "backbone_options": {"bottom_units": (8,)}}
    grads = loss_gradients(build("escm2_dr", (CLICK, CONVERSION), joint=joint, **options), "conversion")
    assert not moved(grads, "click_")
    assert moved(grads, "conversion_head") and moved(grads, "conversion_imputation_head")


def test_no_other_loss_moves_the_imputation():
    model = build("escm2_dr", (CLICK, CONVERSION))
    for loss in ("click", "click_and_conversion"):
        assert not moved(loss_gradients(model, loss), "conversion_imputation_")


def test_without_the_risk_it_is_esmm():
    model = build("escm2_dr", (CLICK, CONVERSION), lambda_c=0.0, lambda_g=1.0)
    options = {"num_experts": 3, "expert_units": (8, 6)}
    esmm = build("esmm", (CLICK, CONVERSION), backbone="mmoe", backbone_options=options)
    copy_shared_weights(model, esmm)
    ours = outputs(model)
    for name, z in outputs(esmm).items():
        np.testing.assert_allclose(ours[name], z, atol=1e-6)
    totals = [float(compile_eagerly(m).compute_loss(y=labels(), y_pred=m(inputs()))) for m in (model, esmm)]
    assert totals[0] == pytest.approx(totals[1], abs=1e-6)


def test_the_imputation_settles_at_the_error_of_clicked_rows():
    """The squares are least where d_hat is the mean error: above 1 here, which a sigmoid could not say."""
    model = constant_model(joint=False)
    set_logit(model, "conversion", -3.0)
    error = float(bce(1, -3.0))
    y = {"click": np.ones(64, "float32"), "conversion": np.ones(64, "float32")}
    slopes = []
    for d_hat in (error - 0.5, error, error + 0.5):
        set_logit(model, "conversion_imputation", softplus_inverse(d_hat))
        grads = gradients(model, lambda m: m.task_losses(y, m(inputs()))["conversion"])
        slopes.append(grads["conversion_imputation_head/bias"][0])
    assert error > 3
    assert slopes[0] < -1 and slopes[2] > 1
    assert slopes[1] == pytest.approx(0, abs=1e-5)
