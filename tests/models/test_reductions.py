"""Which model must equal which: exact, with weights copied from one to the other."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import CLICK, CONVERSION, TASKS, build, compile_eagerly, gradients, inputs, labels

X, Y = inputs(), labels()


def outputs(model):
    return {name: ops.convert_to_numpy(z) for name, z in model(X).items()}


def assert_same_function(a, b):
    for name, z in outputs(a).items():
        np.testing.assert_allclose(outputs(b)[name], z, atol=1e-6)


def loss_gradients(model, loss=None):
    compile_eagerly(model)

    def scalar(m):
        losses = m.task_losses(Y, m(X))
        return sum(losses.values()) if loss is None else losses[loss]

    return gradients(model, scalar)


def weight(model, path):
    return next(v for v in model.weights if v.path == path)


def set_layer(model, name, *values):
    for variable, value in zip(model.get_layer(name).weights, values, strict=True):
        variable.assign(value)


def copy_heads_and_embedding(source, target, embedding="embedding"):
    for variable in target.weights:
        root = variable.path.split("/")[0]
        if root.endswith(("_tower", "_head")) or root == embedding:
            variable.assign(weight(source, variable.path))


def copy_bank_to_stack(bank, stack, expert=0):
    for i, dense in enumerate(stack.dense):
        dense.kernel.assign(bank.kernels[i][expert])
        dense.bias.assign(bank.biases[i][expert])


def test_mmoe_with_one_expert_is_shared_bottom():
    mmoe, shared = build("mmoe", num_experts=1), build("shared_bottom")
    copy_heads_and_embedding(mmoe, shared)
    copy_bank_to_stack(mmoe.get_layer("experts"), shared.get_layer("bottom"))
    assert_same_function(mmoe, shared)
    grads = loss_gradients(mmoe)
    for task in TASKS:
        assert not np.any(grads[f"{task.name}_gate/kernel"])
    np.testing.assert_allclose(grads["experts/kernel_0"][0], loss_gradients(shared)["bottom/dense_0/kernel"], atol=1e-6)


def test_mmoe_with_equal_gates_is_omoe():
    mmoe, omoe = build("mmoe"), build("mmoe", share_gate=True)
    kernel = np.random.default_rng(0).normal(size=tuple(omoe.get_layer("shared_gate").kernel.shape))
    set_layer(omoe, "shared_gate", kernel)
    for task in TASKS:
        set_layer(mmoe, f"{task.name}_gate", kernel)
    copy_heads_and_embedding(mmoe, omoe)
    for a, b in zip(omoe.get_layer("experts").weights, mmoe.get_layer("experts").weights, strict=True):
        a.assign(b)
    assert_same_function(mmoe, omoe)


def test_mmoe_with_zero_gates_is_the_mean_of_its_experts():
    mmoe = build("mmoe")
    for task in TASKS:
        gate = mmoe.get_layer(f"{task.name}_gate")
        gate.kernel.assign(np.zeros(gate.kernel.shape))
    experts = keras.Model(mmoe.input, mmoe.get_layer("experts").output)(X)
    mixed = keras.Model(mmoe.input, mmoe.get_layer("click_mixture").output)(X)
    np.testing.assert_allclose(ops.convert_to_numpy(mixed), ops.convert_to_numpy(experts).mean(1), atol=1e-6)


def test_mmoe_does_not_depend_on_the_order_of_its_experts():
    mmoe = build("mmoe")
    before = outputs(mmoe)
    order = [2, 0, 1]
    for variable in mmoe.get_layer("experts").weights:
        variable.assign(ops.convert_to_numpy(variable)[order])
    for task in TASKS:
        gate = mmoe.get_layer(f"{task.name}_gate")
        gate.kernel.assign(ops.convert_to_numpy(gate.kernel)[:, order])
    for name, z in outputs(mmoe).items():
        np.testing.assert_allclose(z, before[name], atol=1e-6)


def test_mmoe_gate_on_one_expert_leaves_the_others_without_gradient():
    from mtl_zoo import Gate

    mmoe = build("mmoe", gate=Gate(use_bias=True))
    gate = mmoe.get_layer("click_gate")
    gate.kernel.assign(np.zeros(gate.kernel.shape))
    gate.bias.assign([0.0, 100.0, 0.0])
    grad = loss_gradients(mmoe, "click")["experts/kernel_0"]
    assert np.any(grad[1])
    assert not np.any(grad[0]) and not np.any(grad[2])


def test_mmoe_number_of_parameters():
    mmoe = build("mmoe", expert_units=(8, 6), num_experts=3)
    width = mmoe.get_layer("experts").kernels[0].shape[1]
    expert = width * 8 + 8 + 8 * 6 + 6
    assert mmoe.get_layer("experts").count_params() == 3 * expert
    assert mmoe.get_layer("click_gate").count_params() == 3 * width


def test_cross_stitch_with_the_identity_is_independent_networks():
    stitch, single = build("cross_stitch", diagonal=1.0), build("single_task", share_embeddings=True)
    copy_heads_and_embedding(stitch, single)
    for task in TASKS:
        for i in range(2):
            column = stitch.get_layer(f"{task.name}_column_{i}").dense[0]
            dense = single.get_layer(f"{task.name}_bottom").dense[i]
            dense.kernel.assign(column.kernel)
            dense.bias.assign(column.bias)
    assert_same_function(stitch, single)
    ours, theirs = loss_gradients(stitch), loss_gradients(single)
    for task in TASKS:
        for i in range(2):
            np.testing.assert_allclose(
                ours[f"{task.name}_column_{i}/dense_0/kernel"],
                theirs[f"{task.name}_bottom/dense_{i}/kernel"],
                atol=1e-6,
            )


@pytest.mark.parametrize("name", ["shared_bottom", "cross_stitch", "mmoe"])
def test_one_task_is_the_single_task_network(name):
    extra = {"num_experts": 1} if name == "mmoe" else {}
    model, single = build(name, [CLICK], **extra), build("single_task", [CLICK], share_embeddings=True)
    copy_heads_and_embedding(model, single)
    bottom = single.get_layer("click_bottom")
    if name == "mmoe":
        copy_bank_to_stack(model.get_layer("experts"), bottom)
    else:
        stacks = [model.get_layer(f"click_column_{i}") for i in range(2)] if name == "cross_stitch" else None
        stacks = stacks or [model.get_layer("bottom")]
        for target, source in zip(bottom.dense, [d for stack in stacks for d in stack.dense], strict=True):
            target.kernel.assign(source.kernel)
            target.bias.assign(source.bias)
    assert_same_function(model, single)


def test_shared_bottom_gets_the_sum_of_the_tasks_gradients():
    model = build("shared_bottom")
    total = loss_gradients(model)["bottom/dense_0/kernel"]
    parts = [loss_gradients(model, task.name)["bottom/dense_0/kernel"] for task in TASKS]
    np.testing.assert_allclose(total, sum(parts), atol=1e-6)


def test_single_task_networks_share_nothing():
    model = build("single_task")
    assert model.independent_tasks
    for task in TASKS:
        grads = loss_gradients(model, task.name)
        moved = {path for path, grad in grads.items() if np.any(grad)}
        assert moved == {v.path for v in model.task_variables(task.name)}
    assert not build("single_task", share_embeddings=True).independent_tasks


def test_a_loss_weight_of_zero_leaves_the_tower_alone():
    model = build("shared_bottom")
    weights = {"click": 1.0, "conversion": 0.0, "like": 1.0}
    compile_eagerly(model, keras.optimizers.SGD(0.1), loss_weights=weights)
    before = [ops.convert_to_numpy(v).copy() for v in model.task_variables("conversion")]
    model.fit(X, Y, batch_size=64, verbose=0)
    for variable, value in zip(model.task_variables("conversion"), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


# ESMM.


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
    grads = gradients(model, lambda m: sum(m.task_losses(y, m(X)).values()))
    assert grads["click_head/bias"][0] == pytest.approx(d_click, abs=2e-6)
    assert grads["conversion_head/bias"][0] == pytest.approx(d_conversion, abs=2e-6)


def test_esmm_with_certain_clicks_is_conversion_on_impressions():
    model = esmm_with_logits(60.0, logit(0.2))
    z = (np.arange(64) % 3 == 0).astype("float32")
    losses = model.task_losses({"click": np.ones(64, "float32"), "conversion": z}, model(X))
    expected = -np.mean(z * np.log(0.2) + (1 - z) * np.log(0.8))
    assert float(losses["click_and_conversion"]) == pytest.approx(expected, abs=1e-6)


def test_esmm_click_loss_does_not_move_the_conversion_tower():
    model = build("esmm", (CLICK, CONVERSION))
    grads = loss_gradients(model, "click")
    private = [path for path in grads if path.startswith("conversion_")]
    assert private
    assert not any(np.any(grads[path]) for path in private)


def test_esmm_product_never_exceeds_the_click_score():
    scores = build("esmm", (CLICK, CONVERSION)).predict_on_batch(X)
    assert (scores["click_and_conversion"] <= scores["click"]).all()


def test_esmm_counts_a_conversion_without_click_as_none(caplog):
    model = compile_eagerly(build("esmm", (CLICK, CONVERSION)))
    y = {"click": np.zeros(64, "float32"), "conversion": np.ones(64, "float32")}
    y["click"][:8] = 1
    z, counts = model.targets(y)["click_and_conversion"]
    np.testing.assert_array_equal(ops.convert_to_numpy(z), y["click"])
    assert ops.convert_to_numpy(counts).all()
    model.fit(X, y, verbose=0)
    assert "56 of 64 rows have conversion = 1 with click = 0" in caplog.text


def test_esmm_product_is_unobserved_where_it_cannot_be_known():
    model = build("esmm", (CLICK, CONVERSION))
    y = {"click": np.array([0, 1, 1, np.nan], "float32"), "conversion": np.array([np.nan, np.nan, 1, 1], "float32")}
    z, counts = (ops.convert_to_numpy(t) for t in model.targets(y)["click_and_conversion"])
    np.testing.assert_array_equal(counts, [1, 0, 1, 0])
    np.testing.assert_array_equal(z * counts, [0, 0, 1, 0])
