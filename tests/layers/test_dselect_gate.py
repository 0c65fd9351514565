"""DSelect-k: the codes of its selectors, where they settle, and what they no longer learn there."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import assert_same_function, build, compile_eagerly, gradients, inputs, labels, loss_gradients, sample_of

import mtl_zoo
from mtl_zoo import DSelectK, Gate
from mtl_zoo.layers import DSelectKGate, ExpertGate, ExpertMixture, make_gate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")
FORMS = pytest.mark.parametrize("per_example", [True, False])


def made(num_experts=4, **options):
    gate = DSelectKGate(num_experts, DSelectK(**options))
    gate.build(X.shape)
    return gate


def set_logits(gate, selectors, mixture=None):
    """The same logits for every row."""
    for kernel in (gate.selector_kernel, gate.mixture_kernel):
        if kernel is not None:
            kernel.assign(np.zeros(kernel.shape))
    gate.selector_bias.assign(np.ravel(selectors))
    if mixture is not None:
        gate.mixture_bias.assign(mixture)


def weights(gate, **arguments):
    return ops.convert_to_numpy(gate(X, **arguments))


def smooth_step(z, gamma):
    inside = -2 * z**3 / gamma**3 + 3 * z / (2 * gamma) + 0.5
    return np.where(z <= -gamma / 2, 0.0, np.where(z >= gamma / 2, 1.0, inside))


def oracle(z, a, num_experts, gamma):
    """Weights of one row from the logits z (k, bits) and a (k,)."""
    total = np.zeros(num_experts)
    for selector, share in zip(z, np.exp(a) / np.exp(a).sum(), strict=True):
        for e in range(num_experts):
            bits = np.binary_repr(e, width=len(selector))
            steps = smooth_step(selector, gamma)
            total[e] += share * np.prod([s if bit == "1" else 1 - s for bit, s in zip(bits, steps, strict=True)])
    return total


@FORMS
@pytest.mark.parametrize("num_experts, gamma", [(2, 1.0), (4, 0.7), (5, 1.0), (8, 3.0)])
def test_gate_against_numpy(num_experts, gamma, per_example):
    gate = made(num_experts, num_selected=3, gamma=gamma, per_example=per_example)
    for weight in gate.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape), scale=0.4 * gamma))
    z = np.tile(ops.convert_to_numpy(gate.selector_bias), (6, 1))
    a = np.tile(ops.convert_to_numpy(gate.mixture_bias), (6, 1))
    if per_example:
        z = z + X @ ops.convert_to_numpy(gate.selector_kernel)
        a = a + X @ ops.convert_to_numpy(gate.mixture_kernel)
    expected = [oracle(z[i].reshape(3, -1), a[i], num_experts, gamma) for i in range(6)]
    np.testing.assert_allclose(weights(gate), expected, atol=1e-5)


@FORMS
def test_golden_weights(per_example):
    gate = made(num_selected=1, per_example=per_example)
    set_logits(gate, [0.25, -0.25])
    np.testing.assert_allclose(weights(gate)[0], [0.131836, 0.024414, 0.711914, 0.131836], atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(gate._smooth_step(np.array([0.25, -0.25]))), [0.84375, 0.15625])


@FORMS
def test_weights_start_nearly_even_and_at_zero_they_are(per_example):
    gate = made(8, num_selected=2, per_example=per_example)
    bound = 0.01 if per_example else 0.01 + 1e-7
    assert np.abs(ops.convert_to_numpy(gate.selector_bias)).max() <= bound
    assert np.abs(ops.convert_to_numpy(gate.mixture_bias)).max() <= 0.05
    np.testing.assert_allclose(weights(gate), 1 / 8, atol=0.15)
    np.testing.assert_allclose(weights(gate).sum(-1), 1, atol=1e-6)
    assert np.unique(ops.convert_to_numpy(gate.selector_bias)).size > 1
    set_logits(gate, np.zeros(6))
    np.testing.assert_allclose(weights(gate), 1 / 8, atol=1e-7)


def test_start_scales_with_the_step():
    for gamma in (0.1, 10.0):
        bias = ops.convert_to_numpy(made(1024, num_selected=8, gamma=gamma).selector_bias)
        assert 0.005 * gamma < np.abs(bias).max() <= 0.01 * gamma


def model_of(gate):
    """Experts that are numbers, weighed by the gate."""
    inputs = keras.Input((5,))
    experts = np.arange(1.0, gate.num_experts + 1, dtype="float32")[None, :, None]
    return keras.Model(inputs, ops.sum(gate(inputs)[:, :, None] * experts))


@FORMS
def test_settled_selectors_choose_one_expert_each_and_get_no_gradient(per_example):
    gate = made(8, num_selected=2, per_example=per_example)
    # 101 = expert 5 and 011 = expert 3; one bit on the very edge of the step, one far out.
    set_logits(gate, [[0.5, -0.7, 1e6], [-3.0, 0.51, 0.5]], mixture=[0.0, 0.0])
    expected = np.zeros(8)
    expected[[5, 3]] = 0.5
    np.testing.assert_array_equal(weights(gate), np.tile(expected, (6, 1)))
    grads = gradients(model_of(gate), lambda m: m(X))
    assert not np.any(grads[gate.selector_bias.path])
    assert np.any(grads[gate.mixture_bias.path])
    if per_example:
        assert not np.any(grads[gate.selector_kernel.path])

    # A bit inside of the step still learns.
    set_logits(gate, [[0.5, -0.7, 0.4], [-3.0, 0.51, 0.5]], mixture=[0.0, 0.0])
    grads = gradients(model_of(gate), lambda m: m(X))[gate.selector_bias.path]
    np.testing.assert_array_equal(grads != 0, [False, False, True, False, False, False])


def test_one_settled_selector_is_a_hard_choice_and_experts_not_chosen_get_no_gradient():
    gate = made(4, num_selected=1)
    set_logits(gate, [1.0, -1.0])
    features = keras.Input((5,))
    experts = mtl_zoo.layers.ExpertBank(4, (3,), name="experts")
    model = keras.Model(features, ExpertMixture()(gate(features), experts(features)))
    assert [w.path for w in gate.weights if "mixture" in w.path] == []
    grad = gradients(model, lambda m: ops.sum(m(X) ** 2))["experts/kernel_0"]
    assert np.any(grad[2])
    assert not np.any(np.delete(grad, 2, axis=0))


@FORMS
def test_codes_of_no_expert_are_penalised_in_training(per_example):
    gate = made(3, num_selected=2, per_example=per_example)
    set_logits(gate, np.zeros(4), mixture=[0.0, 0.0])
    np.testing.assert_allclose(weights(gate), 0.25)
    assert not gate.losses
    weights(gate, training=True)
    assert float(gate.losses[0]) == pytest.approx(2 / 0.75, rel=1e-5)
    # Settled on an expert the penalty is least; on the code 11 of none it is large, and finite.
    set_logits(gate, [[1.0, -1.0], [-1.0, 1.0]])
    weights(gate, training=True)
    assert float(gate.losses[-1]) == pytest.approx(2.0, rel=1e-5)
    set_logits(gate, [1.0, 1.0, 1.0, 1.0])
    weights(gate, training=True)
    assert np.isfinite(float(gate.losses[-1])) and float(gate.losses[-1]) > 1e5


@pytest.mark.extended
def test_penalty_drives_the_weights_to_sum_to_one():
    gate = made(5, num_selected=2, per_example=False)
    set_logits(gate, [0.2, 0.1, 0.1, 0.1, 0.2, 0.1])
    assert weights(gate).sum(-1).max() < 0.7
    inputs = keras.Input((5,))
    model = keras.Model(inputs, gate(inputs))
    model.compile(keras.optimizers.SGD(0.05), loss=lambda y, weights: 0.0 * ops.sum(weights, axis=-1))
    model.fit(X, np.zeros((6, 5)), batch_size=6, epochs=40, verbose=0)
    assert weights(gate).sum(-1).min() > 0.99


@FORMS
def test_entropy_of_selectors_is_a_cost(per_example):
    gate = made(4, num_selected=3, entropy=0.5, per_example=per_example)
    set_logits(gate, np.zeros(6), mixture=np.zeros(3))
    weights(gate, training=True)
    assert float(gate.losses[0]) == pytest.approx(0.5 * 3 * np.log(4), rel=1e-4)
    set_logits(gate, np.ones(6))
    weights(gate, training=True)
    assert abs(float(gate.losses[-1])) < 1e-5
    assert not made(4).losses


def test_static_gate_does_not_read_its_input():
    gate = made(4, per_example=False)
    assert sorted(tuple(w.shape) for w in gate.weights) == [(2,), (4,)]
    np.testing.assert_array_equal(weights(gate), np.tile(weights(gate)[:1], (6, 1)))


def test_gate_over_one_expert_gives_one_and_has_no_weights():
    gate = made(1)
    assert not gate.weights
    np.testing.assert_array_equal(weights(gate, training=True), np.ones((6, 1)))
    assert not gate.losses


@pytest.mark.parametrize("name", sample_of(["mmoe", "cgc", "ple", "adatt", "home", "stem"], ("mmoe", "cgc")))
def test_models_take_it(name):
    model = compile_eagerly(build(name, gate=DSelectK(num_selected=1)))
    gates = [layer for layer in model.layers if isinstance(layer, DSelectKGate)]
    grads = loss_gradients(model)
    for gate in gates:
        assert gate.num_experts == 1 or np.any(grads[gate.selector_kernel.path])
    assert len(gates) >= 3
    assert type(model).from_config(model.get_config()).gate == model.gate


def test_a_model_with_it_trains_and_loads(tmp_path):
    model = compile_eagerly(build("mmoe", gate=DSelectK(num_selected=2, entropy=1e-6)))
    model.train_on_batch(inputs(), labels())
    model.save(tmp_path / "model.keras")
    assert_same_function(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_make_gate_gives_the_layer_of_its_options():
    assert isinstance(make_gate(3, DSelectK(), expert_names="abc", name="g"), DSelectKGate)
    assert isinstance(make_gate(3, Gate()), ExpertGate)
    assert isinstance(make_gate(3), ExpertGate)
    assert make_gate(3, DSelectK(gamma=2.0), expert_names="abc").expert_names == ("a", "b", "c")


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: DSelectK(num_selected=0), ValueError, "`num_selected` must be a whole number >= 1"),
        (lambda: DSelectK(gamma=0), ValueError, "`gamma` must be a finite number and > 0"),
        (lambda: DSelectK(entropy=-1), ValueError, "`entropy` must be a finite number and >= 0"),
        (lambda: make_gate(2, "softmax"), TypeError, "`gate` must be a Gate or a DSelectK. Received: gate='softmax'"),
        (lambda: ExpertGate(2, DSelectK()), TypeError, "`gate` must be a Gate; a DSelectK is for DSelectKGate"),
        (lambda: DSelectKGate(2, Gate()), TypeError, "`gate` must be a DSelectK; a Gate is for ExpertGate"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
