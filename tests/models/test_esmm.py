"""ESMM: golden gradients, the product, and labels that contradict the funnel."""

import numpy as np
import pytest
from keras import ops
from toys import CLICK, CONVERSION, build, compile_eagerly, gradients, inputs, loss_gradients, set_layer


def esmm_with_logits(click, conversion):
    """ESMM whose logits are constants: kernels of the heads are zero, biases the logits."""
    model = compile_eagerly(build("esmm", (CLICK, CONVERSION)))
    for name, logit in (("click_head", click), ("conversion_head", conversion)):
        head = model.get_layer(name)
        set_layer(model, name, np.zeros(head.kernel.shape), [logit])
    return model


def logit(p):
    return float(np.log(p / (1 - p)))


@pytest.mark.parametrize(
    "clicked, converted, d_click, d_conversion",
    [(0, 0, 0.344681, 0.051064), (1, 0, -0.655319, 0.051064), (1, 1, -1.4, -0.8)],
)
def test_esmm_gradients_golden(clicked, converted, d_click, d_conversion):
    model = esmm_with_logits(logit(0.3), logit(0.2))
    y = {"click": np.full(64, clicked, "float32"), "conversion": np.full(64, converted, "float32")}
    grads = gradients(model, lambda m: sum(m.task_losses(y, m(inputs())).values()))
    assert grads["click_head/bias"][0] == pytest.approx(d_click, abs=2e-6)
    assert grads["conversion_head/bias"][0] == pytest.approx(d_conversion, abs=2e-6)


def test_esmm_with_certain_clicks_is_conversion_on_impressions():
    model = esmm_with_logits(60.0, logit(0.2))
    z = (np.arange(64) % 3 == 0).astype("float32")
    losses = model.task_losses({"click": np.ones(64, "float32"), "conversion": z}, model(inputs()))
    expected = -np.mean(z * np.log(0.2) + (1 - z) * np.log(0.8))
    assert float(losses["click_and_conversion"]) == pytest.approx(expected, abs=1e-6)


def test_esmm_click_loss_does_not_move_the_conversion_tower():
    model = build("esmm", (CLICK, CONVERSION))
    grads = loss_gradients(model, "click")
    private = [path for path in grads if path.startswith("conversion_")]
    assert private
    assert not any(np.any(grads[path]) for path in private)


def test_esmm_product_never_exceeds_the_click_score():
    scores = build("esmm", (CLICK, CONVERSION)).predict_on_batch(inputs())
    assert (scores["click_and_conversion"] <= scores["click"]).all()


def test_esmm_counts_a_conversion_without_click_as_none(caplog):
    model = compile_eagerly(build("esmm", (CLICK, CONVERSION)))
    y = {"click": np.zeros(64, "float32"), "conversion": np.ones(64, "float32")}
    y["click"][:8] = 1
    z, counts = model.targets(y)["click_and_conversion"]
    np.testing.assert_array_equal(ops.convert_to_numpy(z), y["click"])
    assert ops.convert_to_numpy(counts).all()
    model.fit(inputs(), y, verbose=0)
    assert "56 of 64 rows have conversion = 1 with click = 0" in caplog.text


def test_esmm_product_is_unobserved_where_it_cannot_be_known():
    model = build("esmm", (CLICK, CONVERSION))
    y = {"click": np.array([0, 1, 1, np.nan], "float32"), "conversion": np.array([np.nan, np.nan, 1, 1], "float32")}
    z, counts = (ops.convert_to_numpy(t) for t in model.targets(y)["click_and_conversion"])
    np.testing.assert_array_equal(counts, [1, 0, 1, 0])
    np.testing.assert_array_equal(z * counts, [0, 0, 1, 0])
