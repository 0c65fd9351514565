"""DCMT: its losses in NumPy, its constraint, what they must not move, and its reduction to ESMM."""

import numpy as np
import pytest
from keras import ops
from toys import (
    CLICK,
    CONVERSION,
    build,
    compile_eagerly,
    copy_shared_weights,
    head_losses,
    inputs,
    labels,
    loss_gradients,
    moved,
    outputs,
    set_logit,
)

from mtl_zoo.heads import CounterfactualTwin

NAN = float("nan")
CLICKED = np.array([1, 1, 0, 0, 1, NAN])
CONVERTED = np.array([1, 0, NAN, 1, NAN, 1])
A = np.array([-1.0, 0.5, 2.0, -9.0, 0.1, 0.2])
B = np.array([-40.0, -0.7, 3.0, 0.4, 0.5, 0.6])
TWIN = np.array([0.3, 1.0, -2.0, 40.0, 0.0, 1.0])
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])


def bce(y, z):
    return np.logaddexp(0, np.where(np.asarray(y) == 1, -1.0, 1.0) * np.asarray(z, "float64"))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("self_normalized", [False, True])
def test_losses_against_numpy(weighted, self_normalized):
    counts = np.array([1, 1, 1, 1, 0, 0]) * (WEIGHTS if weighted else 1.0)
    head = CounterfactualTwin(min_propensity=0.05, self_normalized=self_normalized)
    logits = {"click": A, "conversion": B, "click_and_conversion": A, "conversion_twin": TWIN}
    weights = {"conversion": WEIGHTS} if weighted else None
    found = head_losses(head, {"click": CLICKED, "conversion": CONVERTED}, logits, weights)
    for name, rows, errors, a in (
        ("conversion", CLICKED == 1, bce(CONVERTED, B), A),
        ("conversion_twin", CLICKED == 0, bce(1, TWIN), -A),
    ):
        w = counts * rows * np.minimum(1 + np.exp(-a), 20)
        expected = (w * errors).sum() / (w if self_normalized else counts).sum()
        assert found[name] == pytest.approx(expected, rel=1e-5)


def penalty(b, twin, weights=None, **options):
    logits = {"conversion": np.array(b)[:, None], "conversion_twin": np.array(twin)[:, None]}
    logits = {name: ops.convert_to_tensor(z, "float32") for name, z in logits.items()}
    penalties = CounterfactualTwin(**options).penalties((CLICK, CONVERSION), {}, logits, weights)
    return {name: float(value) for name, value in penalties.items()}


def test_the_constraint():
    found = penalty(B, TWIN, constraint=0.5)["conversion_constraint"]
    assert found == pytest.approx(0.5 * np.abs(1 - sigmoid(B) - sigmoid(TWIN)).mean(), rel=1e-5)
    weighted = penalty(B, TWIN, {"conversion": WEIGHTS}, constraint=0.5)["conversion_constraint"]
    expected = np.average(np.abs(1 - sigmoid(B) - sigmoid(TWIN)), weights=WEIGHTS)
    assert weighted == pytest.approx(0.5 * expected, rel=1e-5)
    assert penalty(B, TWIN, constraint=0.0) == {}


def test_a_twin_that_says_the_opposite_meets_the_constraint():
    assert penalty(B, -B) == {"conversion_constraint": 0.0}


def test_the_constraint_is_in_the_objective_and_no_loss():
    model = compile_eagerly(build("dcmt", (CLICK, CONVERSION), constraint=10.0, lambda_c=1.0))
    set_logit(model, "conversion", 20.0)
    set_logit(model, "conversion_twin", 20.0)
    logits = model(inputs())
    losses = sum(float(loss) for loss in model.task_losses(labels(), logits).values())
    assert float(model.compute_loss(y=labels(), y_pred=logits)) == pytest.approx(losses + 10, rel=1e-4)
    assert "conversion_constraint" not in model.loss_names


def test_conversion_losses_move_nothing_of_the_click():
    model = build("dcmt", (CLICK, CONVERSION))
    factual, twin = (loss_gradients(model, loss) for loss in ("conversion", "conversion_twin"))
    assert not moved(factual, "click_") and not moved(twin, "click_")
    assert not moved(twin, "conversion_head", "conversion_bottom")
    assert not moved(factual, "conversion_twin_")
    assert moved(factual, "conversion_head") and moved(twin, "conversion_twin_head")


def test_without_the_two_losses_and_the_constraint_it_is_esmm():
    model = build("dcmt", (CLICK, CONVERSION), constraint=0.0)
    esmm = build("esmm", (CLICK, CONVERSION))
    copy_shared_weights(model, esmm)
    ours = outputs(model)
    for name, z in outputs(esmm).items():
        np.testing.assert_allclose(ours[name], z, atol=1e-6)
    weights = {"click": 1.0, "click_and_conversion": 1.0, "conversion": 0.0, "conversion_twin": 0.0}
    compile_eagerly(model, loss_weights=weights)
    totals = [float(m.compute_loss(y=labels(), y_pred=m(inputs()))) for m in (model, compile_eagerly(esmm))]
    assert totals[0] == pytest.approx(totals[1], abs=1e-6)


def test_the_twin_learns_from_rows_without_a_click_only():
    y, counts = (
        ops.convert_to_numpy(part)
        for part in build("dcmt", (CLICK, CONVERSION)).targets(
            {"click": CLICKED.astype("float32"), "conversion": CONVERTED.astype("float32")}
        )["conversion_twin"]
    )
    np.testing.assert_array_equal(counts, [0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(y[counts == 1], [1, 1])


def test_the_weight_of_the_two_losses_and_files_of_before_there_was_one():
    def weights(made):
        return made.head.loss_weights(made.tasks)

    model = build("dcmt", (CLICK, CONVERSION), lambda_c=0.2)
    expected = {"click": 1.0, "conversion": 0.2, "click_and_conversion": 1.0, "conversion_twin": 0.2}
    assert weights(model) == pytest.approx(expected)
    config = model.get_config()
    assert weights(type(model).from_config(config)) == pytest.approx(expected)
    del config["lambda_c"]
    assert set(weights(type(model).from_config(config)).values()) == {1.0}
    head = CounterfactualTwin(lambda_c=0.2).get_config()
    assert CounterfactualTwin.from_config(head) == CounterfactualTwin(lambda_c=0.2)
    del head["lambda_c"]
    assert CounterfactualTwin.from_config(head) == CounterfactualTwin(lambda_c=1.0)
    with pytest.raises(ValueError, match="`lambda_c` must be"):
        CounterfactualTwin(lambda_c=-1)
