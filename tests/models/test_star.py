"""STAR: neutral factors make it a shared bottom, and each domain's factors are its own."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import (
    CLICK,
    TASKS,
    assert_same_function,
    build,
    compile_eagerly,
    copy_heads_and_embedding,
    features,
    gradients,
    inputs,
    labels,
    loss_gradients,
    set_layer,
    tensor_value,
)

import mtl_zoo
from mtl_zoo import Categorical, create_model


def array(x):
    return ops.convert_to_numpy(x)


def scatter(model, *layers):
    rng = np.random.default_rng(3)
    for variable in (v for name in layers for v in model.get_layer(name).trainable_variables):
        variable.assign(array(variable) + 0.3 * rng.normal(size=tuple(variable.shape)))


def on_domain(model, layer, domain):
    """Output of a layer on rows that all have this domain id."""
    x = inputs() | {"domain": np.full(64, domain, "int32")}
    return array(keras.Model(model.input, model.get_layer(layer).output)(x))


def test_star_with_neutral_factors_and_shared_moments_is_shared_bottom():
    star = build("star", auxiliary_units=(4,))
    others = [f for f in features() if f.name != "domain"]
    shared = create_model("shared_bottom", others, TASKS, bottom_units=(8, 6), tower_units=(5,))
    normalization = star.get_layer("normalization")
    normalization.moving_variance.assign(np.full(normalization.moving_variance.shape, 1 - normalization.epsilon))
    for task in TASKS:
        first = star.get_layer(f"{task.name}_tower").dense[0]
        first.kernel.assign(np.concatenate([array(first.kernel)[:6], np.zeros((4, 5))]))  # no auxiliary network
        shared.get_layer(f"{task.name}_tower").dense[0].kernel.assign(array(first.kernel)[:6])
        set_layer(shared, f"{task.name}_head", *star.get_layer(f"{task.name}_head").weights)
    for table in shared.get_layer("embedding").weights:
        table.assign(next(v for v in star.weights if v.path == table.path))
    for ours, theirs in zip(star.get_layer("star").dense, shared.get_layer("bottom").dense, strict=True):
        theirs.kernel.assign(ours.kernel)
    assert_same_function(star, shared)
    ours, theirs = loss_gradients(star), loss_gradients(shared)
    for i in range(2):
        np.testing.assert_allclose(ours[f"star/dense_{i}/kernel"], theirs[f"bottom/dense_{i}/kernel"], atol=1e-6)
    for domain in (0, 1, 3, 4):
        np.testing.assert_allclose(on_domain(star, "star", domain), on_domain(star, "star", 2), atol=1e-6)


def test_star_against_numpy():
    star = build("star")
    scatter(star, "normalization", "star")
    vectors = {name: array(v) for name, v in star.get_layer("embedding")(inputs()).items()}
    z = np.concatenate([v for name, v in vectors.items() if name != "domain"], axis=1)
    d = inputs()["domain"] - 2
    gamma, beta, gamma_p, beta_p, *_ = (array(v) for v in star.get_layer("normalization").weights)
    x = gamma * gamma_p[d] * z / np.sqrt(1 + 1.0) + beta + beta_p[d]  # moments as they start: 0 and 1
    for dense in star.get_layer("star").dense:
        kernel, bias, of_domain, bias_of_domain = (array(v) for v in dense.weights)
        x = np.maximum(np.einsum("bi,bio->bo", x, kernel * of_domain[d]) + bias + bias_of_domain[d], 0)
    np.testing.assert_allclose(tensor_value(star, star.get_layer("star").output), x, atol=1e-5)


def test_a_logit_is_that_of_the_star_plus_that_of_the_auxiliary_network():
    star = build("star", [CLICK], tower_units=())
    kernel, bias = (array(v) for v in star.get_layer("click_head").weights)
    parts = [tensor_value(star, star.get_layer(name).output) for name in ("star", "auxiliary")]
    expected = parts[0] @ kernel[:6] + parts[1] @ kernel[6:] + bias
    np.testing.assert_allclose(tensor_value(star, star.output["click"]), expected, atol=1e-5)


def test_a_batch_of_one_domain_leaves_the_others_alone():
    star = compile_eagerly(build("star"), keras.optimizers.SGD(0.1))
    scatter(star, "normalization", "star")
    star.fit(inputs(), labels(), verbose=0)  # every domain has moments
    by_domain = [v for v in star.weights if v.shape[0] in (3, 4) and v.path.split("/")[0] in ("star", "normalization")]
    assert len(by_domain) == 5 + 2 * 2  # a normalisation, two star layers
    before = [array(v) for v in by_domain]
    x, y = inputs(seed=5) | {"domain": np.full(64, 3, "int32")}, labels()
    star.fit(x, y, batch_size=32, verbose=0)
    for old, variable in zip(before, by_domain, strict=True):
        new = array(variable)
        np.testing.assert_array_equal(new[[0, 2]], old[[0, 2]])
        assert np.any(new[1] != old[1]), f"{variable.path} stayed"


def test_missing_unknown_and_impossible_domains_get_the_mean_of_the_domains():
    star = build("star", bottom_units=mtl_zoo.MLP((8,), activation="linear"))
    scatter(star, "star")
    known = [on_domain(star, "star", domain) for domain in (2, 3, 4)]
    for domain in (0, 1, 5, -1):
        np.testing.assert_allclose(on_domain(star, "star", domain), np.mean(known, axis=0), atol=1e-5)


def test_the_domains_own_vector_reaches_the_auxiliary_network_alone():
    star = build("star")
    for layer, reached in (("star", False), ("auxiliary", True)):
        part = keras.Model(star.input, star.get_layer(layer).output)
        grads = gradients(part, lambda m: ops.sum(m(inputs())))
        table = next(v.path for v in star.get_layer("embedding").tables if v.shape[1] == 2)
        assert np.any(grads.get(table, 0)) == reached


def test_domain_by_name_and_what_cannot_be_one():
    named = [Categorical("user_id", size=5), Categorical("country", size=4)]
    model = create_model("star", named, [CLICK], domain="country")
    assert model.get_layer("domain_shares").num_domains == 4
    copy_heads_and_embedding(model, type(model).from_config(model.get_config()))
    with pytest.raises(ValueError, match="`domain` must name the Categorical feature that holds each row's domain"):
        create_model("star", named, [CLICK])
    with pytest.raises(ValueError, match="`domain` must hold one value a row. Received: domain='tags', which is multi"):
        create_model("star", features(), [CLICK], domain="tags")
    with pytest.raises(ValueError, match=r"`features` must hold more than the domain. Received: \['domain'\]"):
        create_model("star", [Categorical("domain", size=4)], [CLICK])


def test_epsilon_is_an_argument_and_files_of_before_keep_theirs():
    assert build("star").get_layer("normalization").epsilon == 1.0
    paper = build("star", normalization_epsilon=1e-3)
    assert paper.get_layer("normalization").epsilon == 1e-3
    config = paper.get_config()
    assert type(paper).from_config(config).get_layer("normalization").epsilon == 1e-3
    del config["normalization_epsilon"]
    assert type(paper).from_config(config).get_layer("normalization").epsilon == 1e-3
