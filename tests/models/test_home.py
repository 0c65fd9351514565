"""HoME: what each level sees of the groups, what its gates add, and the PLE that is left without them."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import (
    TASKS,
    assert_same_function,
    build,
    copy_heads_and_embedding,
    copy_layers,
    inputs,
    loss_gradients,
    numpy_experts,
    numpy_mix,
    outputs,
    set_layer,
    tensor_value,
)

from mtl_zoo import MLP, Gate
from mtl_zoo.layers import BaseGate

NAMES = tuple(task.name for task in TASKS)
GROUPS = {"funnel": ("click", "conversion"), "social": ("like",)}
PLAIN = {"feature_gate": False, "self_gate": False, "expert_units": MLP((6,))}


def value(model, layer):
    return tensor_value(model, model.get_layer(layer).output)


def numpy_home(model, groups, self_gate=False):
    """The tensors that the towers read, without feature gates and norms."""
    x = tensor_value(model, model.get_layer("shared_experts_0").input)
    shared = numpy_experts(model.get_layer("shared_experts_0"), x)
    of_groups = {group: numpy_experts(model.get_layer(f"{group}_experts_0"), x) for group in groups}

    def read(reader, selector, sets, own, at):
        mixed = numpy_mix(model.get_layer(f"{reader}_gate{at}"), selector, np.concatenate(sets, axis=1))
        if not self_gate:
            return mixed
        layer = model.get_layer(f"{reader}_self_gate{at}")
        if own.shape[1] > 1:
            return mixed + numpy_mix(layer, selector, own)
        return mixed + own[:, 0] / (1 + np.exp(-selector @ ops.convert_to_numpy(layer.kernel)))

    z_shared = read("shared", x, [*of_groups.values(), shared], shared, "_0")
    z = {group: read(group, x, [own, shared], own, "_0") for group, own in of_groups.items()}
    shared = numpy_experts(model.get_layer("shared_experts_1"), z_shared)
    towers = {}
    for group, members in groups.items():
        both = np.concatenate([z[group], z_shared], axis=1)
        of_group = numpy_experts(model.get_layer(f"{group}_experts_1"), both)
        for task in members:
            own = numpy_experts(model.get_layer(f"{task}_experts_1"), both)
            towers[task] = read(task, both, [own, of_group, shared], own, "_1")
    return towers


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("self_gate, count", [(False, 2), (True, 2), (True, 1)])
def test_home_against_numpy(groups, self_gate, count):
    """With one group of all tasks and without gates and norms: a net like PLE of two levels."""
    counts = dict.fromkeys(("num_task_experts", "num_group_experts", "num_shared_experts"), count)
    model = build("home", task_groups=groups, **{**PLAIN, "self_gate": self_gate}, **counts)
    expected = numpy_home(model, groups or {"group": NAMES}, self_gate)
    for name in NAMES:
        read = model.get_layer(f"{name}_tower").input
        np.testing.assert_allclose(tensor_value(model, read), expected[name], atol=1e-5)


def test_home_with_a_group_a_task_is_ple_where_the_rest_is_ignored():
    gate = Gate(use_bias=True)
    groups = {f"g_{name}": (name,) for name in NAMES}
    home = build("home", task_groups=groups, gate=gate, **PLAIN)
    ple = build("ple", expert_units=(6,), gate=gate)
    copy_heads_and_embedding(ple, home)
    copy_layers(ple, home, [("shared_experts_0", "shared_experts_0"), ("shared_experts_1", "shared_experts_1")])
    copy_layers(ple, home, [("shared_gate_0", "shared_gate_0")])
    for name in NAMES:
        copy_layers(ple, home, [(f"{name}_experts_0", f"g_{name}_experts_0"), (f"{name}_gate_0", f"g_{name}_gate_0")])
        # Of z_group || z_shared, PLE reads the first half.
        kernel, bias = (ops.convert_to_numpy(w) for w in ple.get_layer(f"{name}_experts_1").weights)
        set_layer(home, f"{name}_experts_1", np.concatenate([kernel, np.zeros_like(kernel)], axis=1), bias)
        # Of own, group and shared experts, those of the group get no weight.
        kernel = ops.convert_to_numpy(ple.get_layer(f"{name}_gate_1").kernel)
        kernel = np.insert(np.concatenate([kernel, np.zeros_like(kernel)]), [2, 2], 0.0, axis=1)
        set_layer(home, f"{name}_gate_1", kernel, [0.0, 0.0, -1e9, -1e9, 0.0])
    assert_same_function(home, ple)
    ours, theirs = loss_gradients(home, "like"), loss_gradients(ple, "like")
    for name in NAMES:
        grad = theirs[f"{name}_experts_0/kernel_0"]
        np.testing.assert_allclose(ours[f"g_{name}_experts_0/kernel_0"], grad, atol=1e-6)
        assert np.any(grad)


def test_a_task_sees_its_group_and_no_other():
    model = build("home", task_groups=GROUPS)
    assert model.get_layer("click_gate_1").expert_names == (
        *("click_0", "click_1", "funnel_0", "funnel_1"),
        "shared_0",
    )
    assert model.get_layer("social_gate_0").expert_names == ("social_0", "social_1", "shared_0")
    seen_by_shared = ("funnel_0", "funnel_1", "social_0", "social_1", "shared_0")
    assert model.get_layer("shared_gate_0").expert_names == seen_by_shared
    gates = [layer.name for layer in model.layers if isinstance(layer, BaseGate)]
    assert len([name for name in gates if "_self_" not in name]) == 3 + 3

    grads = loss_gradients(model, "like")
    moved = {path.split("/")[0] for path, grad in grads.items() if np.any(grad)}
    assert {"like_experts_1", "social_experts_1", "shared_experts_1", "social_experts_0", "shared_experts_0"} <= moved
    foreign = {"funnel_experts_1", "click_experts_1", "conversion_experts_1", "funnel_gate_0", "funnel_self_gate_0"}
    assert not moved & (foreign | {"click_gate_1", "click_self_gate_1", "funnel_feature_gate_1"})
    # The groups meet below, through the gate of the shared representation.
    assert "funnel_experts_0" in moved
    # Within a group, only what is a task's own stays apart.
    moved = {path.split("/")[0] for path, grad in loss_gradients(model, "click").items() if np.any(grad)}
    assert "funnel_experts_1" in moved and "conversion_experts_1" not in moved


def test_feature_gates_start_as_the_identity():
    gated = build("home", self_gate=False)
    plain = build("home", self_gate=False, feature_gate=False)
    for variable in plain.weights:
        variable.assign(next(v for v in gated.weights if v.path == variable.path))
    assert_same_function(gated, plain)
    # One for each owner of experts at each level, and a task's loss moves its own.
    names = [layer.name for layer in gated.layers if layer.name.split("_feature_gate_")[1:]]
    assert sorted(names) == sorted(
        [f"{owner}_feature_gate_{at}" for owner in ("group", "shared") for at in (0, 1)]
        + [f"{name}_feature_gate_1" for name in NAMES]
    )
    grads = loss_gradients(gated, "click")
    assert np.any(grads["click_feature_gate_1/up"]) and not np.any(grads["like_feature_gate_1/up"])
    before = outputs(gated)
    for name in names:
        up = gated.get_layer(name).up
        up.assign(np.random.default_rng(0).normal(size=tuple(up.shape)))
    assert all(np.abs(outputs(gated)[name] - before[name]).max() > 1e-4 for name in NAMES)
    # At the identity only `up` learns; from then on all of the gate does.
    assert not np.any(grads["click_feature_gate_1/down"])
    assert not [path for path, grad in loss_gradients(gated).items() if not np.any(grad)]


def test_experts_are_normalised_before_swish():
    model = build("home", feature_gate=False, expert_units=(6,), norm="batch")
    bank = model.get_layer("shared_experts_0")
    x = tensor_value(model, bank.input)
    out = ops.convert_to_numpy(bank(x, training=True))
    y = np.einsum("bd,ndh->bnh", x, ops.convert_to_numpy(bank.kernels[0]))
    y = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
    np.testing.assert_allclose(out, y / (1 + np.exp(-y)), atol=1e-4)
    # Few units stay at zero, unlike those of ReLU experts on the same input.
    assert np.mean(out == 0) == 0
    relu = build("home", expert_units=MLP((6,))).get_layer("shared_experts_0")
    assert (relu.mlp.norm, relu.mlp.activation) == (None, "relu")
    assert build("home", expert_units=(6,)).get_layer("shared_experts_0").mlp == MLP((6,), "silu", epsilon=1e-5)


def test_a_self_gate_keeps_a_path_to_experts_that_the_gate_has_dropped():
    off = [-1e9, -1e9, 0.0, 0.0, 0.0]
    for self_gate in (True, False):
        model = build("home", self_gate=self_gate, gate=Gate(use_bias=True))
        kernel = np.zeros(tuple(model.get_layer("like_gate_1").kernel.shape))
        set_layer(model, "like_gate_1", kernel, off)
        assert np.any(loss_gradients(model, "like")["like_experts_1/kernel_0"]) == self_gate


def test_groups_are_kept_in_the_config_and_reach_other_heads(tmp_path):
    import mtl_zoo

    model = build("home", task_groups=GROUPS)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("click_gate_1").expert_names == model.get_layer("click_gate_1").expert_names
    assert_same_function(model, loaded)
    funnel = build("home", TASKS[:2], head=mtl_zoo.EntireSpace(), task_groups={"a": ["click"], "b": ["conversion"]})
    assert set(funnel(inputs())) >= {"click", "conversion"}


@pytest.mark.parametrize(
    "groups, error, message",
    [
        ([NAMES], TypeError, "`task_groups` must be a dict of group name -> names of its tasks"),
        ({"all": "click"}, TypeError, "`task_groups` must be a dict of group name -> names of its tasks"),
        ({"all": NAMES[:2]}, ValueError, r"hold each task once, and no empty group.*Expected: the tasks \['click'"),
        ({"all": NAMES, "more": ("like",)}, ValueError, "`task_groups` must hold each task once"),
        ({"all": NAMES, "none": ()}, ValueError, "`task_groups` must hold each task once, and no empty group"),
        ({"shared": NAMES}, ValueError, r"differ from each other and from 'shared'.*Received twice: \['shared'\]"),
        ({"click": NAMES}, ValueError, r"must have names that differ.*Received twice: \['click'\]"),
        ({"a/b": NAMES}, ValueError, "`task_groups` may hold letters, digits"),
    ],
)
def test_wrong_groups(groups, error, message):
    with pytest.raises(error, match=message):
        build("home", task_groups=groups)


@pytest.mark.parametrize("argument", ["num_task_experts", "num_group_experts", "num_shared_experts"])
def test_wrong_numbers(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a whole number >= 1"):
        build("home", **{argument: 0})


# fault 18
def test_epsilon_is_that_of_the_authors_code_and_files_of_0_1_0_keep_theirs():
    def epsilons(model):
        return {norm.epsilon for layer in model.layers for norm in getattr(layer, "norms", ()) if norm}

    model = build("home", norm="batch")
    assert epsilons(model) == {1e-5}
    config = model.get_config()
    assert epsilons(type(model).from_config(config)) == {1e-5}
    assert not epsilons(type(model).from_config({**config, "norm": None}))
    del config["norm"]  # as it was while there was no choice
    assert epsilons(type(model).from_config(config)) == {1e-5}
    old = type(model).from_config({**config, "format": 1})
    assert epsilons(old) == {1e-3}
    assert epsilons(type(model).from_config(old.get_config())) == {1e-3}
