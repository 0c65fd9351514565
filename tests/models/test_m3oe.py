"""M3oE: its equation, what is left without its own experts, guards, and gradients that must be zero."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import (
    CLICK,
    TASKS,
    build,
    compile_eagerly,
    features,
    gradients,
    inputs,
    labels,
    loss_gradients,
    numpy_experts,
    outputs,
)

from mtl_zoo import MLP, Categorical, Numeric, create_model

SCALARS = ("domain_mixture", "task_mixture")
DOMAIN = inputs()["domain"] - 2


def array(x):
    return ops.convert_to_numpy(x)


def small(tasks=TASKS, **arguments):
    return build("m3oe", tasks, **{"star_units": 9, "pair_units": (5,), "tower_units": (), **arguments})


def scatter(model):
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        if not variable.path.startswith("embedding"):
            variable.assign(array(variable) + 0.3 * rng.normal(size=tuple(variable.shape)))
    return model


def by_domain(kernel, width):
    """Kernel over blocks, (domains * (width + 1), units), as kernels (domains, width, units) and biases."""
    count = kernel.shape[0] // (width + 1)
    return kernel[: count * width].reshape(count, width, -1), kernel[count * width :]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def relu_stack(layer, x):
    for kernel, bias in zip(layer.weights[::2], layer.weights[1::2], strict=True):
        x = np.maximum(x @ array(kernel) + array(bias), 0)
    return x


def representation(model):
    x = array(model.get_layer("embedding")(inputs()))
    kernel, bias, of_domain, bias_of_domain = (array(v) for v in model.get_layer("star").weights)
    star = np.einsum("bi,bio->bo", x, kernel * of_domain[DOMAIN]) + bias + bias_of_domain[DOMAIN]
    return relu_stack(model.get_layer("bottom"), star) + relu_stack(model.get_layer("skip"), x)


def test_m3oe_against_numpy():
    model = scatter(small())
    r = representation(model)
    shared, domains, tasks = (numpy_experts(model.get_layer(f"{n}_experts"), r) for n in ("shared", "domain", "task"))
    (e_d, b_d), (e_t, b_t) = ((float(model.get_layer(n).strength), float(model.get_layer(n).balance)) for n in SCALARS)
    for k, task in enumerate(TASKS):
        own = tasks[:, k]
        of_task = b_t * own + (1 - b_t) / 2 * (tasks.sum(1) - own)
        own = domains[np.arange(64), DOMAIN]
        of_domain = b_d * own + (1 - b_d) / 2 * (domains.sum(1) - own)
        kernels, biases = by_domain(array(model.get_layer(f"{task.name}_gate").kernel), 6)
        weights = softmax(np.einsum("bi,bio->bo", r, kernels[DOMAIN]) + biases[DOMAIN])
        fused = np.einsum("bn,bnh->bh", weights, shared) + e_d * of_domain + e_t * of_task
        pair = numpy_experts(model.get_layer(f"{task.name}_pairs"), fused)[np.arange(64), DOMAIN]
        kernel, bias = (array(v) for v in model.get_layer(f"{task.name}_head").weights)
        kernels, biases = by_domain(kernel, 5)
        expected = np.einsum("bi,bio->bo", pair, kernels[DOMAIN]) + biases[DOMAIN] + bias
        np.testing.assert_allclose(outputs(model)[task.name], expected, atol=1e-4)


def test_without_own_experts_it_is_a_star_layer_under_mmoe():
    model = scatter(small(pair_units=()))
    for name in SCALARS:
        model.get_layer(name).strength_logit.assign(-1e4)
        assert float(model.get_layer(name).strength) == 0.0
    rng = np.random.default_rng(7)
    mmoe = {}
    for task in TASKS:  # one gate and one head for all domains
        gate, head = rng.normal(size=(6, 3)), rng.normal(size=(6, 1))
        model.get_layer(f"{task.name}_gate").kernel.assign(np.concatenate([gate] * 3 + [np.zeros((3, 3))]))
        model.get_layer(f"{task.name}_head").kernel.assign(np.concatenate([head] * 3 + [np.zeros((3, 1))]))
        mmoe[task.name] = (gate, head, array(model.get_layer(f"{task.name}_head").bias))
    values = representation(model)
    experts = numpy_experts(model.get_layer("shared_experts"), values)
    for name, (gate, head, bias) in mmoe.items():
        expected = np.einsum("bn,bnh->bh", softmax(values @ gate), experts) @ head + bias
        np.testing.assert_allclose(outputs(model)[name], expected, atol=1e-4)
    grads = loss_gradients(model)
    for unused in ("domain_experts", "task_experts"):
        assert not np.any(grads[f"{unused}/kernel_0"])


def test_gates_send_no_gradient_into_the_representation():
    model = scatter(small())
    part = keras.Model(model.input, model.get_layer("click_gate").output)
    grads = gradients(part, lambda m: ops.sum(m(inputs())[:, 0]))
    assert np.any(grads.pop("click_gate/kernel"))
    assert {path.split("/")[0] for path in grads} >= {"embedding", "star", "bottom", "skip"}
    assert not [path for path, grad in grads.items() if np.any(grad)]


def test_rows_of_one_domain_leave_the_others_parts_alone():
    model = compile_eagerly(scatter(small()))
    x = inputs() | {"domain": np.full(64, 3, "int32")}
    grads = gradients(model, lambda m: sum(m.task_losses(labels(), m(x)).values()))
    of_domains = {path: grad for path, grad in grads.items() if grad.shape and grad.shape[0] == 3}
    own = [p for p in of_domains if p.startswith("star/domain_") or "_pairs/" in p]
    assert len(own) == 2 + 3 * 2
    for path in own:
        assert np.any(of_domains[path][1]) and not np.any(of_domains[path][[0, 2]]), path
    for task in TASKS:
        for kernel, width in ((f"{task.name}_gate/kernel", 6), (f"{task.name}_head/kernel", 5)):
            for part in by_domain(grads[kernel], width):
                assert np.any(part[1]) and not np.any(part[[0, 2]]), kernel
    # The experts of the others take part in the mix.
    assert all(np.any(grad) for grad in grads["domain_experts/kernel_0"])


def test_a_row_of_no_domain_is_served_by_the_mean_of_all():
    """Linear parts: star weights, and the head's weights by pair; its domain's own vector is zero here."""
    model = scatter(small())
    table = model.get_layer("embedding").tables[-1]
    table.assign(np.zeros(table.shape))
    star = keras.Model(model.input, model.get_layer("star").output)
    head = keras.Model(model.get_layer("click_blocks").input, model.output["click"])
    pair = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")

    def on(domain):
        x = inputs() | {"domain": np.full(64, domain, "int32")}
        return array(star(x)), array(head([ops.convert_to_tensor(pair), model.get_layer("domain_shares")(x["domain"])]))

    known = [on(domain) for domain in (2, 3, 4)]
    for domain in (0, 1, 77):
        for unknown, values in zip(on(domain), zip(*known, strict=True), strict=True):
            np.testing.assert_allclose(unknown, np.mean(values, axis=0), atol=1e-4)
    scores = model.predict_on_batch(inputs() | {"domain": np.arange(64, dtype="int32") % 5})
    assert all(np.isfinite(score).all() for score in scores.values())


def test_one_domain_and_one_task():
    """The published code divides by the number of other domains, and of other tasks."""
    specs = [Categorical("domain", size=1, dim=2), Numeric("age")]
    model = create_model("m3oe", specs, [CLICK], star_units=4, expert_units=(3,))
    compile_eagerly(model).fit(
        {"age": inputs()["age"], "domain": inputs()["domain"] % 3},
        {"click": labels()["click"]},
        batch_size=32,
        verbose=0,
    )
    assert all(model.get_layer(name).balance_logit is None for name in SCALARS)
    assert all(np.isfinite(array(v)).all() for v in model.weights)


def test_the_balance_is_learned_once_and_stays_a_share():
    """The published code trains these numbers in two optimizers, by `~flag` of a bool, which is always true."""
    model = small()
    logits = [v for name in SCALARS for v in model.get_layer(name).trainable_variables]
    assert len(logits) == 4 and all(sum(v is w for w in model.trainable_variables) == 1 for v in logits)
    before = [float(v) for v in logits]
    grads = loss_gradients(model)
    compile_eagerly(model, keras.optimizers.SGD(0.5))
    model.fit(inputs(), labels(), batch_size=64, shuffle=False, verbose=0)
    for variable, old in zip(logits, before, strict=True):
        assert float(variable) == pytest.approx(old - 0.5 * float(grads[variable.path]), abs=1e-5)
        assert 0 < float(ops.sigmoid(variable)) < 1


def test_widths_are_normalised_as_asked_for():
    paper = create_model("m3oe", features(), [CLICK], norm="layer", expert_units=MLP((7,)))
    assert paper.get_layer("bottom").mlp == paper.get_layer("skip").mlp == MLP((256,), norm="layer", epsilon=1e-5)
    assert paper.get_layer("click_pairs").mlp == MLP((64,), norm="layer", epsilon=1e-5)
    assert paper.get_layer("domain_experts").mlp == MLP((7,))
    model = create_model("m3oe", features(), [CLICK])
    for name in ("bottom", "skip", "shared_experts", "domain_experts", "task_experts", "click_pairs"):
        assert model.get_layer(name).mlp.norm is None
    assert model.get_layer("click_gate").expert_names == ("shared_0", "shared_1", "shared_2", "shared_3")
