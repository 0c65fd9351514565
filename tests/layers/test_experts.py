import keras
import numpy as np
import pytest
from keras import ops

from mtl_zoo.layers import ExpertBank, ExpertGate, ExpertMixture
from mtl_zoo.options import MLP, Gate

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def relu(x):
    return np.maximum(x, 0)


def test_bank_against_numpy_on_one_input_and_on_one_input_an_expert():
    bank = ExpertBank(3, (4, 2))
    out = ops.convert_to_numpy(bank(X))
    k0, k1 = (ops.convert_to_numpy(k) for k in bank.kernels)
    bank.biases[0].assign(np.arange(12).reshape(3, 4) / 10)
    b0 = np.arange(12).reshape(3, 4) / 10
    out = ops.convert_to_numpy(bank(X))
    for e in range(3):
        np.testing.assert_allclose(out[:, e], relu(relu(X @ k0[e] + b0[e]) @ k1[e]), atol=1e-5)
    own = np.stack([X, 2 * X, 3 * X], axis=1)
    out = ops.convert_to_numpy(bank(own))
    for e in range(3):
        np.testing.assert_allclose(out[:, e], relu(relu(own[:, e] @ k0[e] + b0[e]) @ k1[e]), atol=1e-5)


def test_no_two_experts_start_equal_and_each_is_distributed_like_a_dense():
    bank = ExpertBank(8, (128, 64))
    bank.build((None, 490))
    for kernel, fan_in in zip(bank.kernels, (490, 128), strict=True):
        kernel = ops.convert_to_numpy(kernel)
        for i in range(8):
            for j in range(i):
                assert np.abs(np.corrcoef(kernel[i].ravel(), kernel[j].ravel())[0, 1]) < 0.05
        dense = keras.layers.Dense(kernel.shape[-1])
        dense.build((None, fan_in))
        alone = ops.convert_to_numpy(dense.kernel)
        for expert in kernel:
            assert np.std(expert) == pytest.approx(np.std(alone), rel=0.03)
            assert np.abs(expert).max() <= np.sqrt(6 / sum(alone.shape)) + 1e-6


@pytest.mark.parametrize("initializer", [keras.initializers.HeNormal(seed=3), keras.initializers.HeNormal()])
def test_an_initializer_object_is_drawn_anew_for_every_expert(initializer):
    bank = ExpertBank(2, (4,), kernel_initializer=initializer)
    bank.build((None, 3))
    first, second = ops.convert_to_numpy(bank.kernels[0])
    assert not np.allclose(first, second)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_normalised_experts_match_stand_alone_layers(norm):
    bank = ExpertBank(2, MLP((4,), norm=norm))
    out = ops.convert_to_numpy(bank(X, training=True))
    for e in range(2):
        y = X @ ops.convert_to_numpy(bank.kernels[0])[e]
        axis = 0 if norm == "batch" else 1
        y = (y - y.mean(axis, keepdims=True)) / np.sqrt(y.var(axis, keepdims=True) + 1e-3)
        np.testing.assert_allclose(out[:, e], relu(y), atol=1e-4)


def test_residual_and_dropout():
    bank = ExpertBank(2, MLP((4, 4), residual=True))
    plain = ExpertBank(2, (4, 4))
    plain.build(X.shape)
    bank.build(X.shape)
    for a, b in zip(bank.weights, plain.weights, strict=True):
        a.assign(b)
    first = ExpertBank(2, (4,))
    first.build(X.shape)
    for a, b in zip(first.weights, [plain.kernels[0], plain.biases[0]], strict=True):
        a.assign(b)
    np.testing.assert_allclose(
        ops.convert_to_numpy(bank(X)), ops.convert_to_numpy(plain(X)) + ops.convert_to_numpy(first(X)), atol=1e-5
    )
    dropped = ExpertBank(2, MLP((50,), dropout=0.5))
    kept = np.mean(ops.convert_to_numpy(dropped(X, training=True)) != 0)
    without = np.mean(ops.convert_to_numpy(dropped(X, training=False)) != 0)
    assert kept < 0.7 * without


def test_gate_against_numpy_and_sums_to_one():
    gate = ExpertGate(4, Gate(temperature=2.0, use_bias=True))
    gate.build(X.shape)
    gate.bias.assign([0.1, 0.2, 0.3, 0.4])
    z = (X @ ops.convert_to_numpy(gate.kernel) + [0.1, 0.2, 0.3, 0.4]) / 2
    expected = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    weights = ops.convert_to_numpy(gate(X))
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_gate_has_no_bias_unless_asked():
    gate = ExpertGate(4)
    gate.build(X.shape)
    assert [tuple(w.shape) for w in gate.weights] == [(5, 4)]


def test_gate_dropout_renormalises(monkeypatch):
    gate = ExpertGate(3, Gate(dropout=0.5))
    gate.build((1, 5))
    weights = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], "float32")
    uniform = np.array([[0.0, 0.9, 0.9], [0.1, 0.1, 0.1]], "float32")
    monkeypatch.setattr(keras.random, "uniform", lambda *a, **k: ops.convert_to_tensor(uniform))
    # The second row would lose all its experts, and keeps them.
    dropped = ops.convert_to_numpy(gate._drop(ops.convert_to_tensor(weights)))
    np.testing.assert_allclose(dropped, [[0.0, 0.6, 0.4], [0.5, 0.3, 0.2]], atol=1e-6)


def test_gate_dropout_only_in_training():
    gate = ExpertGate(8, Gate(dropout=0.5))
    np.testing.assert_array_equal(ops.convert_to_numpy(gate(X)), ops.convert_to_numpy(gate(X, training=False)))
    dropped = ops.convert_to_numpy(gate(X, training=True))
    assert (dropped == 0).any()
    np.testing.assert_allclose(dropped.sum(-1), 1, atol=1e-5)


def test_gate_entropy_is_rewarded():
    gate = ExpertGate(4, Gate(entropy=0.5))
    gate.build(X.shape)
    gate.kernel.assign(np.zeros((5, 4)))
    gate(X, training=True)
    assert float(gate.losses[0]) == pytest.approx(-0.5 * np.log(4), rel=1e-4)


def test_mixture_of_equal_experts_does_not_depend_on_the_gate():
    experts = np.repeat(np.random.default_rng(1).normal(size=(6, 1, 3)), 4, axis=1).astype("float32")
    weights = ops.softmax(np.random.default_rng(2).normal(size=(6, 4)).astype("float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(ExpertMixture()(weights, experts)), experts[:, 0], atol=1e-6)


def test_mixture_against_numpy():
    rng = np.random.default_rng(3)
    weights, experts = rng.random((6, 4)).astype("float32"), rng.normal(size=(6, 4, 3)).astype("float32")
    expected = np.einsum("bn,bnh->bh", weights, experts)
    np.testing.assert_allclose(ops.convert_to_numpy(ExpertMixture()(weights, experts)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ExpertBank(0, (4,)), "`num_experts` must be a whole number >= 1. Received: num_experts=0"),
        (lambda: ExpertBank(2, ()), "`expert_units` must hold at least one layer width"),
        (lambda: ExpertBank(2, (4, -1)), r"`expert_units\[1\]` must be a whole number"),
        (lambda: ExpertBank(2, "64"), "`expert_units` must be a list of layer widths"),
        (lambda: Gate(temperature=0), "`temperature` must be a finite number and > 0"),
        (lambda: Gate(dropout=1.0), "`dropout` must be a finite number and >= 0 and < 1"),
        (lambda: MLP((4,), norm="weight"), "`norm` must be one of the known values.*Expected: one of 'batch', 'layer'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gate_must_be_a_gate():
    with pytest.raises(TypeError, match="`gate` must be a Gate"):
        ExpertGate(2, gate=0.1)
