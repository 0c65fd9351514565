"""The training step of gradient methods, inside real models: against separate tapes, and against Keras' own step."""

import keras
import numpy as np
import pytest
from balanced_steps import (
    LIKE_PLAIN,
    PLACES,
    Mixed,
    Ones,
    OnesOfBorder,
    Sum,
    assert_same,
    by_task,
    compiled,
    gram_of,
    inputs_for,
    small,
    step_of,
    trained,
    values,
)
from keras import ops
from toys import build, inputs, labels, labels_for, sample_of

from mtl_zoo.balancing import create_balancing
from mtl_zoo.options import MLP, Embedding, Gate

pytestmark = pytest.mark.tensorflow


# Against separate tapes.


@pytest.mark.parametrize("include_tables", [False, True])
@pytest.mark.parametrize("name", ["pcgrad", "mgda"])
def test_coefficients_from_products_of_separate_gradients(name, include_tables):
    model = build("mmoe")
    found, touched, dense = by_task(model)
    tables = [p for p, losses in touched.items() if len(losses) > 1 and "/table_" in p]
    assert tables
    assert any("experts" in p for p in dense)
    gram = gram_of(found, dense + tables if include_tables else dense)
    options = {"shuffle": False} if name == "pcgrad" else {}
    method = create_balancing(name, include_tables=include_tables, **options)
    losses = np.array([1.0, 1.0, 1.0], "float32")
    expected = ops.convert_to_numpy(method.coefficients(gram, losses, losses))
    compiled(model, method)
    taken = step_of(model)
    np.testing.assert_allclose(ops.convert_to_numpy(model.balancing.last_coefficients), expected, rtol=1e-3, atol=1e-5)
    for path, losses in touched.items():
        weights = dict(zip(found, expected if len(losses) > 1 else np.ones(3), strict=True))
        combined = sum(weights[loss] * found[loss][path] for loss in found)
        np.testing.assert_allclose(taken[path], combined, atol=1e-6, rtol=1e-3, err_msg=path)
    norms, cosines = model.balancing.last_norms, model.balancing.last_cosines
    np.testing.assert_allclose(ops.convert_to_numpy(norms), np.sqrt(np.diag(gram)), rtol=1e-4)
    lengths = np.sqrt(np.diag(gram))
    np.testing.assert_allclose(ops.convert_to_numpy(cosines), gram / np.outer(lengths, lengths), atol=1e-4)


def test_a_direction_from_separate_gradients():
    model = build("shared_bottom")
    found, touched, dense = by_task(model)
    method = create_balancing("metabalance", target="conversion", relax=0.5)
    compiled(model, method)
    taken = step_of(model)
    coefficients = dict(zip(found, ops.convert_to_numpy(model.balancing.last_coefficients), strict=True))
    norm = {loss: np.linalg.norm(np.concatenate([found[loss][p].ravel() for p in dense])) for loss in found}
    for loss in found:
        assert coefficients[loss] == pytest.approx(0.5 * norm["conversion"] / norm[loss] + 0.5, rel=1e-4)
    for path, losses in touched.items():
        if path in dense:
            sizes = {loss: np.linalg.norm(found[loss][path]) for loss in found}
            scales = {loss: 0.5 * sizes["conversion"] / size + 0.5 for loss, size in sizes.items()}
        else:
            scales = coefficients if len(losses) > 1 else dict.fromkeys(found, 1)
        combined = sum(scales[loss] * found[loss][path] for loss in found)
        np.testing.assert_allclose(taken[path], combined, atol=1e-6, rtol=1e-3, err_msg=path)


@pytest.mark.parametrize(("name", "kernel"), [("mmoe", "experts/kernel_1"), ("shared_bottom", "bottom/dense_1/kernel")])
def test_grad_norm_measures_the_last_shared_kernel_and_weighs_the_losses(name, kernel):
    model = build(name)
    found, _, _ = by_task(model)
    compiled(model, create_balancing("grad_norm", learning_rate=0.3, alpha=0.5))
    weights = np.array([0.5, 1.5, 1.0], "float32")
    model.balancing.weights_now.assign(weights)
    taken = step_of(model)
    scaled = {path: sum(w * found[loss][path] for w, loss in zip(weights, found, strict=True)) for path in taken}
    assert_same(scaled, taken)  # private weights too
    norms = [np.linalg.norm(found[loss][kernel]) for loss in found]
    np.testing.assert_allclose(ops.convert_to_numpy(model.balancing.last_norms), norms, rtol=1e-4)
    assert np.abs(ops.convert_to_numpy(model.balancing.weights_now) - weights).max() > 1e-3


def test_mgda_ub_takes_products_at_the_border():
    import tensorflow as tf

    model = build("shared_bottom")
    found, touched, _ = by_task(model)
    bottom = keras.Model(model.input, model.get_layer("bottom").output)(inputs())
    above = keras.Model(model.get_layer("bottom").output, model.output)
    compiled(model, None)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(bottom)
        losses = model.task_losses(labels(), above(bottom))
    rows = np.stack([tape.gradient(losses[loss], bottom).numpy().ravel() for loss in found])
    compiled(model, "mgda_ub")
    gram = (rows @ rows.T).astype("float32")
    expected = ops.convert_to_numpy(model.balancing.coefficients(gram, np.ones(3, "float32"), np.ones(3, "float32")))
    taken = step_of(model)
    np.testing.assert_allclose(ops.convert_to_numpy(model.balancing.last_norms), np.sqrt(np.diag(gram)), rtol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(model.balancing.last_coefficients), expected, rtol=1e-3)
    for path, losses in touched.items():
        weights = dict(zip(found, expected if len(losses) > 1 else np.ones(3), strict=True))
        combined = sum(weights[loss] * found[loss][path] for loss in found)
        np.testing.assert_allclose(taken[path], combined, atol=1e-6, rtol=1e-3, err_msg=path)


def test_grad_drop_mixes_at_the_border():
    import tensorflow as tf

    model = build("shared_bottom")
    found, touched, _ = by_task(model)
    compiled(model, None)
    below = keras.Model(model.input, model.get_layer("bottom").output)
    above = keras.Model(model.get_layer("bottom").output, model.output)
    shared = [v for v in model.trainable_variables if len(touched[v.path]) > 1]
    with tf.GradientTape(persistent=True) as tape:
        bottom = below(inputs())
        losses = model.task_losses(labels(), above(bottom))
    gradients = np.stack([tape.gradient(losses[loss], bottom).numpy() for loss in found])
    compiled(model, "grad_drop")
    mixed = model.balancing.mix(gradients, bottom.numpy(), np.ones(3, "float32"), np.ones(3, "float32"))
    assert np.abs(ops.convert_to_numpy(mixed) - gradients.sum(0)).max() > 1e-5
    expected = tape.gradient(bottom, [v.value for v in shared], output_gradients=tf.convert_to_tensor(mixed))
    taken = step_of(model)
    for variable, gradient in zip(shared, expected, strict=True):
        np.testing.assert_allclose(
            taken[variable.path], tf.convert_to_tensor(gradient), atol=1e-6, rtol=1e-3, err_msg=variable.path
        )
    for path, losses in touched.items():
        if len(losses) == 1:
            np.testing.assert_allclose(taken[path], found[losses[0]][path], atol=1e-6, err_msg=path)


def test_private_weights_receive_their_loss_times_its_loss_weight():
    model = build("shared_bottom")
    found, touched, _ = by_task(model)
    compiled(model, "mgda", loss_weights={"click": 1.0, "conversion": 1.0, "like": 3.0})
    taken = step_of(model)
    private = [path for path, losses in touched.items() if losses == ["like"]]
    assert private
    for path in private:
        np.testing.assert_allclose(taken[path], 3 * found["like"][path], atol=1e-6)


# Against Keras' own step, with methods that change nothing.


def with_everything():
    # Normalisation, dropout, a penalty on gates and on what is looked up, several reads of a table, shards.
    options = {"embedding": Embedding(l2=0.1, shards=2), "gate": Gate(entropy=0.1)}
    return small("mmoe", num_experts=2, expert_units=MLP((6, 4), norm="batch", dropout=0.3), **options)


def evaluated(model):
    return model.evaluate(inputs_for(model, 24), labels_for(model, 24), batch_size=24, verbose=0)


@pytest.fixture(scope="module")
def plain_with_everything():
    weights, model = trained(with_everything, None)
    return weights, evaluated(model)


@pytest.mark.parametrize("way", LIKE_PLAIN)
def test_a_method_that_changes_nothing_takes_the_plain_step(way, plain_with_everything):
    plain, logs = plain_with_everything
    found, model = trained(with_everything, LIKE_PLAIN[way]())
    assert any("moving" in path for path in plain)
    assert_same(plain, found)
    np.testing.assert_allclose(evaluated(model), logs, rtol=1e-4)
    skipped = ops.convert_to_numpy(model.balancing.skipped)
    assert skipped.tolist() == [0, 0]
    assert float(model.balancing.step) == 2


def fitted(balancing):
    """The weights and logs of three steps of a traced graph."""
    keras.utils.set_random_seed(5)
    model = small()
    model.compile("auto", balancing=balancing, metrics=None)
    x, y = inputs_for(model, 48), labels_for(model, 48)
    logs = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    own = set() if balancing is None else {id(v) for v in model.balancing.weights}
    return {v.path: ops.convert_to_numpy(v) for v in model.weights if id(v) not in own}, logs


@pytest.fixture(scope="module")
def plainly_fitted():
    return fitted(None)


@pytest.mark.extended
@pytest.mark.parametrize(
    "way", ["with tables, every other step", pytest.param("direction", marks=pytest.mark.slow), "mixture"]
)
def test_in_a_graph_too(way, plainly_fitted):
    plain, logs = plainly_fitted
    found, logs_found = fitted(LIKE_PLAIN[way]())
    assert_same(plain, found, atol=1e-5)
    assert list(logs_found) == list(logs)
    for name, value in logs.items():
        assert logs_found[name] == pytest.approx(value, rel=1e-4), name


OPTIMIZERS = {
    "clipnorm": lambda: keras.optimizers.SGD(1.0, clipnorm=0.01),
    "global_clipnorm": lambda: keras.optimizers.SGD(1.0, global_clipnorm=0.01),
    "accumulation": lambda: keras.optimizers.SGD(1.0, gradient_accumulation_steps=2),
    "lazy adam": lambda: "auto",
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_sees_the_combined_gradient(optimizer):
    plain, _ = trained(small, None, OPTIMIZERS[optimizer], steps=3)
    for balancing in (Ones(), Sum(), Mixed()):
        found, _ = trained(small, balancing, OPTIMIZERS[optimizer], steps=3)
        assert_same(plain, found, atol=1e-5)


@pytest.mark.parametrize("policy", sample_of(["mixed_bfloat16", "mixed_float16"], ("mixed_bfloat16",)))
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        plain, _ = trained(small, None)
        for balancing in (Ones(), OnesOfBorder(), Sum(), Mixed()):
            found, model = trained(small, balancing)
            assert_same(plain, found, atol=3e-2)
            assert all(v.dtype == "float32" for v in model.balancing.weights)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("balancing", ["pcgrad", "mgda_ub", "grad_norm", "grad_drop", "moco"])
def test_overflow_makes_the_optimizer_skip_the_step(balancing):
    from mtl_zoo.optimizers import SparseLossScaleOptimizer

    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(small(), balancing, SparseLossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=2.0**30))
        before = values(model.trainable_variables)
        model.train_on_batch(inputs_for(model), labels_for(model))
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same(before, values(model.trainable_variables), atol=0)
    assert float(model.optimizer.dynamic_scale) == 2.0**29
    assert all(np.isfinite(value).all() for value in values(model.balancing.weights).values())


# One task that spoils its gradient.


def spoiled(y, z):
    """A finite loss whose gradient is NaN."""
    return ops.sqrt(ops.square(z[:, 0] - ops.stop_gradient(z[:, 0]))) + 1.0


@pytest.fixture(scope="module")
def without_like():
    return trained(small, None, y={**labels(24), "like": np.full(24, np.nan, "float32")})[0]


@pytest.mark.parametrize("loss", ["nan gradient", "infinite loss"])
@pytest.mark.parametrize("way", sample_of(LIKE_PLAIN, PLACES))
def test_a_task_that_spoils_its_gradient_is_left_out(way, loss, without_like):
    def infinite(y, z):
        return z[:, 0] * 1e30 * 1e30

    functions = {"click": "auto", "like": spoiled if loss == "nan gradient" else infinite}
    found, model = trained(small, LIKE_PLAIN[way](), loss=functions)
    assert_same(without_like, found)
    counted = ops.convert_to_numpy(model.balancing.skipped).tolist()
    # Between two weighings nobody looks at the gradient of each task alone.
    every_other = "every other" in way and loss == "nan gradient"
    assert counted == ([0, 1] if every_other else [0, 2])
    assert all(np.isfinite(value).all() for value in values(model.balancing.weights).values())


def test_a_task_that_is_absent_when_coefficients_are_found_keeps_its_own():
    model = compiled(small(), create_balancing("mgda", update_every=2))
    y = labels_for(model)
    absent = {**y, "like": np.full(64, np.nan, "float32")}
    model.train_on_batch(inputs_for(model), absent)
    kept = ops.convert_to_numpy(model.balancing.kept_coefficients)
    assert ops.convert_to_numpy(model.balancing.last_coefficients)[1] == 0
    assert kept[1] == 1
    taken = step_of(model, y)
    assert np.any(taken["like_head/kernel"])
    np.testing.assert_array_equal(ops.convert_to_numpy(model.balancing.last_coefficients), kept)
    # One step looked at gradients, and saw those of one task.
    assert ops.convert_to_numpy(model.balancing.compared).tolist() == [[1, 0], [0, 0]]


# Tables.


@pytest.mark.parametrize("balancing", ["pcgrad", "with tables", "mgda_ub", "grad_drop"])
def test_no_op_of_a_step_is_as_large_as_a_table(balancing):
    import tensorflow as tf

    model = small(embedding=Embedding(l2=0.1))
    method = create_balancing("pcgrad", include_tables=True) if balancing == "with tables" else balancing
    model.compile("auto", balancing=method, metrics=None)
    model.optimizer.build(model.trainable_variables)
    types = []
    apply = model.optimizer.apply

    def noted(gradients, variables):
        types.extend((type(g), v.path) for g, v in zip(gradients, variables, strict=True))
        apply(gradients, variables)

    model.optimizer.apply = noted
    step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
    graph = step.get_concrete_function(inputs_for(model, 16), labels_for(model, 16)).graph
    tables = model.get_layer("embedding").tables
    assert {path for kind, path in types if kind is tf.IndexedSlices} == {t.path for t in tables}
    shapes = {tuple(t.shape) for t in tables}
    made = [(op.name, out.shape) for op in graph.get_operations() for out in op.outputs if out.shape.rank == 2]
    assert not [name for name, shape in made if tuple(shape) in shapes]
