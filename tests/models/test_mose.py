"""MoSE: what it reads of a sequence, and one expert as a shared LSTM."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from toys import CLICK, TASKS, build, features, inputs, loss_gradients, outputs, tensor_value

from mtl_zoo import Categorical, Sequence, create_model


def cells(model, expert):
    return [layer[expert] for layer in model.get_layer("experts").cells.layers]


def array(x):
    return ops.convert_to_numpy(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(layer, steps, real):
    """States after every step, in plain NumPy; a step that is not real leaves the state alone."""
    kernel, recurrent, bias = (array(v) for v in layer.weights)
    hidden = cell = np.zeros((len(steps), recurrent.shape[0]))
    states = []
    for t in range(steps.shape[1]):
        i, f, new, o = np.split(steps[:, t] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        cell_t = sigmoid(f) * cell + sigmoid(i) * np.tanh(new)
        hidden_t, now = sigmoid(o) * np.tanh(cell_t), real[:, t, None]
        cell, hidden = np.where(now, cell_t, cell), np.where(now, hidden_t, hidden)
        states.append(hidden)
    return np.stack(states, axis=1)


def looked_up(model, x=None):
    vectors = model.get_layer("embedding")(inputs() if x is None else x)
    return {name: array(v) for name, v in vectors.items()}


def test_mose_against_numpy():
    mose = build("mose")
    real = inputs()["history"] != 0
    vectors = looked_up(mose)
    states = vectors.pop("history")
    assert states.shape == (64, 5, 4)
    for name in ("bottom_0", "bottom_1"):
        states = lstm(mose.get_layer(name), states, real)
    experts = []
    for expert in range(3):
        steps = states
        for cell in cells(mose, expert):
            steps = lstm(cell, steps, real)
        experts.append(steps[:, -1])
    for task in TASKS:
        z = states[:, -1] @ array(mose.get_layer(f"{task.name}_gate").kernel)
        weights = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        mixed = sum(weights[:, i, None] * expert for i, expert in enumerate(experts))
        hidden = np.concatenate([mixed, *vectors.values()], axis=1)
        for layer in (mose.get_layer(f"{task.name}_tower").dense[0], mose.get_layer(f"{task.name}_head")):
            hidden = hidden @ array(layer.kernel) + array(layer.bias)
            hidden = np.maximum(hidden, 0) if layer.units > 1 else hidden
        np.testing.assert_allclose(outputs(mose)[task.name], hidden, atol=1e-5)


def test_mose_with_one_expert_is_a_shared_lstm():
    mose = build("mose", num_experts=1, bottom_units=(8,), expert_units=(6,))
    steps = keras.Input((5, 4))
    mask = keras.Input((5,), dtype="bool")
    first, second = keras.layers.LSTM(8, return_sequences=True), keras.layers.LSTM(6)
    shared = keras.Model([steps, mask], second(first(steps, mask=mask), mask=mask))
    for ours, theirs in ((mose.get_layer("bottom_0"), first), (cells(mose, 0)[0], second)):
        theirs.set_weights(ours.get_weights())
    expected = array(shared([ops.convert_to_tensor(v) for v in (looked_up(mose)["history"], inputs()["history"] != 0)]))
    for task in TASKS:
        np.testing.assert_allclose(
            tensor_value(mose, mose.get_layer(f"{task.name}_mixture").output), expected, atol=1e-6
        )
    grads = loss_gradients(mose)
    assert not any(np.any(grads[f"{task.name}_gate/kernel"]) for task in TASKS)
    assert np.any(grads[cells(mose, 0)[0].kernel.path])


def with_length(length):
    return [dataclasses.replace(f, length=length) if f.name == "history" else f for f in features()]


def test_padding_is_no_step_wherever_it_stands():
    mose = build("mose")
    longer = create_model("mose", with_length(9), TASKS, **{n: getattr(mose, n) for n in mose._hyperparameters()})
    longer.set_weights(mose.get_weights())
    x = inputs()
    x["history"][:, 3:] = 0
    x["history"][:4] = 0  # empty lists
    expected = {name: array(z) for name, z in mose(x).items()}
    assert all(np.isfinite(z).all() for z in expected.values())
    behind, before = np.zeros((64, 9), "int32"), np.zeros((64, 9), "int32")
    behind[:, :5], before[:, 4:7] = x["history"], x["history"][:, :3]
    for padded in (behind, before):
        for name, z in longer(x | {"history": padded}).items():
            np.testing.assert_allclose(array(z), expected[name], atol=1e-6)


def test_the_order_of_values_matters_and_an_empty_list_has_the_state_zero():
    mose = build("mose")
    x = inputs()
    x["history"][:] = [2, 3, 4, 5, 0]
    mixture = keras.Model(mose.input, mose.get_layer("click_mixture").output)
    turned = x | {"history": x["history"][:, [3, 2, 1, 0, 4]]}
    assert np.abs(array(mixture(x)) - array(mixture(turned))).max() > 1e-5
    empty = array(mixture(x | {"history": np.zeros((64, 5), "int32")}))
    np.testing.assert_array_equal(empty, np.zeros((64, 6)))


def test_a_sequence_alone_of_one_step():
    """One step of an LSTM from the state 0: `sigmoid(o) tanh(sigmoid(i) tanh(new))`."""
    specs = [Sequence("history", size=6, dim=4, length=1)]
    mose = create_model("mose", specs, [CLICK], num_experts=2, bottom_units=4, expert_units=3, tower_units=())
    x = {"history": np.array([[2], [5], [3]], "int32")}

    def step(layer, values):
        i, _, new, o = np.split(values @ array(layer.weights[0]) + array(layer.weights[2]), 4, axis=1)
        return sigmoid(o) * np.tanh(sigmoid(i) * np.tanh(new))

    bottom = step(mose.get_layer("bottom_0"), looked_up(mose, x)["history"][:, 0])
    experts = np.stack([step(cells(mose, i)[0], bottom) for i in range(2)], axis=1)
    z = bottom @ array(mose.get_layer("click_gate").kernel)
    weights = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    kernel, bias = (array(v) for v in mose.get_layer("click_head").weights)
    expected = np.einsum("bn,bnh->bh", weights, experts) @ kernel + bias
    np.testing.assert_allclose(array(mose(x)["click"]), expected, atol=1e-6)


def test_which_sequence_and_wrong_arguments():
    two = [Sequence("seen", size=5, dim=2, length=3), Sequence("bought", size=5, dim=2, length=4)]
    assert create_model("mose", two, [CLICK], sequence="bought").get_layer("real_steps").output.shape == (None, 4)
    with pytest.raises(ValueError, match="`sequence` must name the Sequence or EntitySequence feature"):
        create_model("mose", two, [CLICK])
    with pytest.raises(ValueError, match="`sequence` must name the Sequence or EntitySequence feature"):
        create_model("mose", [Categorical("user_id", size=5)], [CLICK])
    with pytest.raises(ValueError, match="`num_experts` must be a whole number >= 1. Received: num_experts=0"):
        build("mose", num_experts=0)
    with pytest.raises(ValueError, match=r"`units\[0\]` must be a whole number >= 1"):
        build("mose", expert_units=(0,))
    with pytest.raises(ValueError, match="`bottom_units` must hold at least one layer width"):
        build("mose", bottom_units=())
