"""What every balancing method must do. A new method is tested the moment it is registered."""

import inspect
import json
import sys

import keras
import numpy as np
import pytest
from keras import ops
from linear_case import take_step
from toys import FIVE_TASKS, inputs, labels, labels_for, sample_of

from mtl_zoo import BinaryTask, Categorical, Numeric, RegressionTask, create_model, list_balancing
from mtl_zoo.balancing import GramBalancing, LossBalancing, RepresentationBalancing, create_balancing

METHODS = list_balancing()
every_method = pytest.mark.parametrize("name", METHODS)
# What takes long, with one of each kind: of losses, with weights of its own, with a second look at the losses, of
# products, of directions, of the representation, and with a state by parameter.
SAMPLE = ("dwa", "uncertainty", "famo", "mgda", "pcgrad", "grad_drop", "moco")
sampled_methods = pytest.mark.parametrize("name", sample_of(METHODS, always=SAMPLE))
TENSORFLOW = keras.backend.backend() == "tensorflow"
LIKES = (BinaryTask("click"), BinaryTask("like"), RegressionTask("watch_time"))

# Arguments without a default that works, from the names of the losses.
NEEDED = {"data_based": lambda names: {"frequencies": dict.fromkeys(names, 0.2)}}
# Values that make a short training reach the states that matter.
EVENTFUL = {"dwa": {"steps": 3}, "stch": {"warm_up": 3}, "scheduled": {"steps": 3}}
EVENTFUL["famo"] = {"reevaluates": TENSORFLOW}

# How the direction changes when all gradients are multiplied by s: by s ** degree.
SCALE_LAWS = {
    **dict.fromkeys(("mgda", "mgda_ub", "imtl_g", "aligned_mtl", "pcgrad", "gradvac", "cagrad", "up_grad"), 1),
    **dict.fromkeys(("grad_norm", "grad_drop", "metabalance", "db_mtl", "excess_mtl"), 1),
    "moco": None,  # its weights take a step as long as the products of the gradients
    "nash_mtl": 0,
    "fair_grad": 0,  # its directions are cut to a norm of 1
}
# Methods whose direction does not change, or only in length, when one task's loss (and gradient) is multiplied.
TASK_SCALE_SAME = {"nash_mtl", "stch", "db_mtl"}
TASK_SCALE_PARALLEL = {"gls", "famo"}
# What else is no law of a method, with the reason.
NO_LAW = {
    "permutation": {"rlw": "draws do not follow the losses' names"},
    "symmetry": {"rlw": "random weights"},
    "inactive": {
        "rlw": "another number of losses, other draws",
        "data_based": "constants that sum to T",
    },
}
# One task among several is singled out: by name, so that it stays the same when the order changes.
ANCHOR = {"loss_ratio": {"reference": "a"}, "metabalance": {"target": "a"}}
# With more than two tasks the result depends on the order in which pairs are taken.
TAKES_PAIRS_IN_ORDER = ("pcgrad", "gradvac")


def excused(law, name):
    if name in NO_LAW[law]:
        pytest.skip(NO_LAW[law][name])


def method_of(name, names, **options):
    needed = NEEDED.get(name, lambda names: {})(names)
    return create_balancing(name, **{**needed, **options})


def is_of_losses(name):
    return isinstance(method_of(name, ("a",)), LossBalancing)


def skip_without_tensorflow(name):
    if not TENSORFLOW and not is_of_losses(name):
        pytest.skip("works on gradients, which needs TensorFlow")


def small_model(tasks=LIKES):
    features = [Categorical("user_id", size=30, dim=4), Numeric("age")]
    return create_model("shared_bottom", features, tasks, bottom_units=(6,), tower_units=(4,))


def compiled(name, tasks=LIKES, optimizer="sgd", eager=True, **options):
    skip_without_tensorflow(name)
    model = small_model(tasks)
    method = method_of(name, model.loss_names, **options)
    model.compile(optimizer, balancing=method, metrics=None, run_eagerly=eager)
    return model


def small_inputs(rows=64):
    x = inputs(rows)
    return {"user_id": x["user_id"], "age": x["age"]}


def repeated(arrays, times):
    return {name: np.concatenate([values] * times) for name, values in arrays.items()}


def values(variables):
    return {v.path: ops.convert_to_numpy(v) for v in variables}


def all_finite(model):
    return all(np.isfinite(value).all() for value in values(model.weights).values())


def normalized(value):
    if isinstance(value, list | tuple):
        return [normalized(v) for v in value]
    return {k: normalized(v) for k, v in value.items()} if isinstance(value, dict) else value


# Options, by name and from a config.


def other_values(cls, default, names):
    """Values that an argument may take besides its default, whatever it means."""
    if isinstance(default, bool):
        return [not default]
    numbers = [0.3, 0.7, 3, 2.5, dict.fromkeys(names, 0.5)]
    if isinstance(default, int | float):
        return [default + 1, *numbers]
    modules = [vars(sys.modules[owner.__module__]) for owner in inspect.getmro(cls) if owner is not object]
    constants = [value for module in modules for value in module.values() if isinstance(value, tuple)]
    words = [word for constant in constants for word in constant if isinstance(word, str)]
    return [*words, dict.fromkeys(names, 0.5), names[-1], *numbers]


def accepted(cls, needed, argument, default, names, kinds):
    for value in other_values(cls, default, names):
        if value == default or value == needed.get(argument):
            continue
        try:
            cls(**{**needed, argument: value}).prepare(names, kinds)
        except (ValueError, TypeError):
            continue
        return value
    raise AssertionError(f"no other value found for {cls.__name__}({argument}={default!r})")


@every_method
def test_every_option_comes_back_from_a_config(name):
    names, kinds = ("click", "like"), ("binary", "binary")
    needed = NEEDED.get(name, lambda names: {})(names)
    cls = type(method_of(name, names))
    parameters = {n: p.default for n, p in inspect.signature(cls).parameters.items() if n != "name"}
    assert "name" in inspect.signature(cls).parameters
    options = {argument: accepted(cls, needed, argument, d, names, kinds) for argument, d in parameters.items()}
    method = cls(**options)
    for argument, value in options.items():
        assert normalized(method.get_config()[argument]) == normalized(value), argument
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    clone = keras.saving.deserialize_keras_object(serialized)
    assert type(clone) is cls
    assert normalized(clone.get_config()) == normalized(method.get_config())


@every_method
def test_a_typo_is_refused(name):
    with pytest.raises(TypeError, match=r"`alfaa` is not an argument of .* Expected: one of"):
        create_balancing(name, alfaa=1)
    with pytest.raises(TypeError, match="alfaa"):
        type(method_of(name, ("a",)))(alfaa=1)


@every_method
def test_compile_by_name(name):
    model = small_model()
    if name in NEEDED:
        with pytest.raises(ValueError, match="must be"):
            model.compile(balancing=name)
    elif not TENSORFLOW and not is_of_losses(name):
        with pytest.raises(ValueError, match=rf"`balancing` must be a method of losses on the 'jax'.*'{name}'"):
            model.compile(balancing=name)
    else:
        model.compile(balancing=name)
        assert model.balancing.method_name == name
        assert model.balancing.loss_names == model.loss_names
        assert not any(v.trainable for v in model.balancing.weights)


# Training.


@every_method
def test_fit_lowers_the_losses(name):
    model = compiled(name, optimizer=keras.optimizers.SGD(0.2))
    x, y = small_inputs(), labels_for(model)
    model.fit_tasks(y)  # so that both losses are in one unit

    def total():
        return float(sum(model.task_losses(y, model(x)).values()))

    first = total()
    model.fit(repeated(x, 4), repeated(y, 4), batch_size=64, shuffle=False, verbose=0)
    assert total() < first


@sampled_methods
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_one_to_five_tasks_of_mixed_kinds(name, count):
    tasks = FIVE_TASKS[-count:]
    model = compiled(name, tasks)
    y = labels_for(model)
    before = values(model.trainable_variables)
    for _ in range(2):
        assert np.isfinite(model.train_on_batch(small_inputs(), y if count > 1 else y["effect"])).all()
    assert all_finite(model)
    after = values(model.trainable_variables)
    assert not [path for path in after if not np.any(after[path] != before[path])]
    coefficients = ops.convert_to_numpy(model.balancing.last_coefficients)
    assert coefficients.shape == (count,)
    assert np.isfinite(coefficients).all()
    assert float(model.balancing.step) == 2


@every_method
def test_a_task_without_an_observed_row_is_left_out(name):
    model = compiled(name)
    x, y = small_inputs(), labels()
    y = {task.name: y[task.name] for task in LIKES}
    absent = {**y, "like": np.full(64, np.nan, "float32")}
    before = values(model.weights)
    model.train_on_batch(x, absent)
    after = values(model.trainable_variables)
    private = [v.path for v in model.task_variables("like")]
    assert not [path for path in private if np.any(after[path] != before[path])]
    assert [path for path in after if np.any(after[path] != before[path])]
    coefficients = ops.convert_to_numpy(model.balancing.last_coefficients)
    assert coefficients[1] == 0
    assert np.isfinite(coefficients).all()
    assert np.any(coefficients != 0)
    assert ops.convert_to_numpy(model.balancing.skipped).tolist() == [0, 1, 0]
    model.train_on_batch(x, y)
    assert all_finite(model)


@sampled_methods
def test_a_batch_without_any_observed_row_changes_nothing(name):
    model = compiled(name)
    x, y = small_inputs(), labels_for(model)
    model.train_on_batch(x, y)
    before = values(model.trainable_variables)
    model.train_on_batch(x, {loss: np.full(64, np.nan, "float32") for loss in y})
    for path, value in values(model.trainable_variables).items():
        np.testing.assert_array_equal(value, before[path])
    model.train_on_batch(x, y)
    assert all_finite(model)


@every_method
def test_a_loss_that_is_not_finite_spoils_nothing_else(name):
    model = compiled(name)
    x, y = small_inputs(), labels_for(model)
    y["watch_time"][3] = 1e30
    before = values(model.trainable_variables)
    model.train_on_batch(x, y)
    assert all_finite(model)
    after = values(model.trainable_variables)
    assert not [v.path for v in model.task_variables("watch_time") if np.any(after[v.path] != before[v.path])]
    assert [v.path for v in model.task_variables("click") if np.any(after[v.path] != before[v.path])]
    assert ops.convert_to_numpy(model.balancing.skipped).tolist() == [0, 0, 1]


@sampled_methods
def test_saved_training_goes_on_identically(name, tmp_path):
    options = dict(EVENTFUL.get(name, {}))
    if "update_every" in inspect.signature(type(method_of(name, ("a",)))).parameters:
        options["update_every"] = 3
    model = compiled(name, optimizer=keras.optimizers.SGD(0.05, momentum=0.9), **options)
    x, y = small_inputs(), labels_for(model)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.balancing) is type(model.balancing)
    assert normalized(loaded.get_compile_config()) == normalized(model.get_compile_config())
    for m in (model, loaded):
        m.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    pairs = [*zip(model.weights, loaded.weights, strict=True)]
    assert float(loaded.balancing.step) == 8
    for a, b in pairs:
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        assert np.abs(a - b).max() <= 1e-5 * max(np.abs(a).max(), 1e-3)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(name, policy, marks=() if name in SAMPLE[i::2] else pytest.mark.slow)
        for i, policy in enumerate(["mixed_float16", "mixed_bfloat16"])
        for name in METHODS
    ],
)
def test_trains_under_mixed_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(name)
        before = values(model.trainable_variables)
        loss = model.train_on_batch(small_inputs(), labels_for(model))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(loss).all()
    assert all_finite(model)
    assert all(v.dtype == "float32" for v in model.balancing.weights)
    still = [path for path, value in values(model.trainable_variables).items() if not np.any(value != before[path])]
    assert not still


# Laws, on gradients given as rows, and losses.

GRADIENTS = np.array([[1.0, 0.2, -0.3, 0.5], [-0.6, 1.1, 0.4, 0.2], [0.3, -0.2, 0.9, -0.8]], "float32")
LOSSES = np.array([0.6, 0.15, 1.7], "float32")


def step_alone(name, gradients, losses, names=None, active=None, **options):
    """One step's direction and coefficients, of a method that has no past."""
    gradients, losses = np.asarray(gradients, "float32"), np.asarray(losses, "float32")
    names = names or tuple("abc"[: len(losses)])
    active = np.ones(len(losses), "float32") if active is None else np.asarray(active, "float32")
    method = method_of(name, names, **options)
    method.sizes = sizes = (gradients.shape[1] - 1, 1)
    method.prepare(names, ("binary",) * len(names))
    gradients = gradients * active[:, None]
    losses, active = ops.convert_to_tensor(losses), ops.convert_to_tensor(active)
    if isinstance(method, LossBalancing):
        coefficients = ops.convert_to_numpy(method.weigh(losses, active))
    elif isinstance(method, GramBalancing):
        gram = ops.convert_to_tensor(gradients @ gradients.T)
        coefficients = ops.convert_to_numpy(method.weigh(gram, losses, active))
    elif isinstance(method, RepresentationBalancing):
        # A batch of one row, and a representation that is positive throughout.
        rows = ops.convert_to_tensor(gradients[:, None])
        return ops.convert_to_numpy(method.mix(rows, ops.ones_like(rows[0]), losses, active))[0], np.zeros(len(names))
    else:
        found = method.combine(ops.convert_to_tensor(gradients), losses, active, sizes)
        return tuple(ops.convert_to_numpy(values) for values in found)
    return coefficients @ gradients, coefficients


def step_in_a_model(name, gradients, losses, names=None, active=None, **options):
    """The same by a training step of a model whose losses and gradients are these."""
    names = names or tuple("abc"[: len(losses)])
    return take_step(method_of(name, names, **options), gradients, losses, names, active)


def step_and(names):
    """Each method's step alone, and inside of a model: there by default of one method of each kind."""
    in_a_model = [
        pytest.param(step_in_a_model, *given.values, marks=(pytest.mark.tensorflow, *given.marks))
        for given in sample_of(names, always=[name for name in names if name in SAMPLE])
    ]
    return pytest.mark.parametrize(("step", "name"), [*((step_alone, name) for name in names), *in_a_model])


every_step = step_and(METHODS)


def assert_parallel(a, b):
    assert a @ b > 0
    np.testing.assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=2e-4)


@every_step
def test_law_one_task_keeps_its_gradient(step, name):
    direction, _ = step(name, GRADIENTS[:1], LOSSES[:1])
    assert_parallel(direction, GRADIENTS[0])


@every_step
@pytest.mark.parametrize("count", [2, 3])
def test_law_equal_gradients_keep_their_direction(step, name, count):
    direction, _ = step(name, [GRADIENTS[0]] * count, [0.5] * count)
    assert_parallel(direction, GRADIENTS[0])


@every_step
def test_law_the_order_of_the_tasks_does_not_matter(step, name):
    excused("permutation", name)
    count = 2 if name in TAKES_PAIRS_IN_ORDER else 3
    order = [1, 0] if count == 2 else [2, 0, 1]
    options = ANCHOR.get(name, {})
    gradients, losses = GRADIENTS[:count], LOSSES[:count]
    direction, coefficients = step(name, gradients, losses, **options)
    names = tuple("abc"[i] for i in order)
    permuted, permuted_coefficients = step(name, gradients[order], losses[order], names, **options)
    np.testing.assert_allclose(permuted, direction, atol=2e-4)
    np.testing.assert_allclose(permuted_coefficients, coefficients[order], atol=2e-4)


@every_step
def test_law_orthogonal_equal_gradients_weigh_the_same(step, name):
    excused("symmetry", name)
    direction, _ = step(name, 2 * np.eye(3), [0.5] * 3)
    assert_parallel(direction, np.ones(3))


@every_step
def test_law_of_scale(step, name):
    degree = 1 if is_of_losses(name) else SCALE_LAWS.get(name, "unknown")
    assert degree != "unknown", f"say in SCALE_LAWS how {name} scales, or None"
    if degree is None:
        pytest.skip("no law")
    direction, _ = step(name, GRADIENTS, LOSSES)
    scaled, _ = step(name, 4 * GRADIENTS, LOSSES)
    np.testing.assert_allclose(scaled, 4.0**degree * direction, rtol=2e-3, atol=2e-4)


@step_and(sorted(TASK_SCALE_SAME | TASK_SCALE_PARALLEL))
def test_law_of_one_tasks_scale(step, name):
    factors = np.array([1.0, 5.0, 1.0], "float32")
    direction, _ = step(name, GRADIENTS, LOSSES)
    scaled, _ = step(name, factors[:, None] * GRADIENTS, factors * LOSSES)
    assert_parallel(scaled, direction)
    if name in TASK_SCALE_SAME:
        np.testing.assert_allclose(scaled, direction, rtol=2e-3, atol=2e-4)


@every_step
def test_law_an_inactive_task_might_as_well_not_be_there(step, name):
    excused("inactive", name)
    without, coefficients = step(name, GRADIENTS[:2], LOSSES[:2])
    direction, given = step(name, GRADIENTS, LOSSES, active=[1, 1, 0])
    np.testing.assert_allclose(direction, without, atol=2e-4)
    np.testing.assert_allclose(given, [*coefficients, 0.0], atol=2e-4)
