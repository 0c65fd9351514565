"""What every registered model must do. A new model is tested the moment it is registered."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import (
    CLICK,
    CONVERSION,
    FIVE_TASKS,
    TASKS,
    build,
    compile_eagerly,
    features,
    gradients,
    gradients_of_each,
    inputs,
    labels,
    labels_for,
    logits_of,
)

import mtl_zoo
from mtl_zoo._once import computed_once

MODELS = mtl_zoo.list_models()
every_model = pytest.mark.parametrize("name", MODELS)
# Tests that share what a fixture of the module makes of a model run one after another.
every_model_once = pytest.mark.parametrize("name", MODELS, scope="module")


def normalized(value):
    if isinstance(value, list | tuple):
        return [normalized(v) for v in value]
    return {k: normalized(v) for k, v in value.items()} if isinstance(value, dict) else value


def largest_difference(a, b):
    """max|dW| / max|W| over the tensors of two models of one shape."""
    pairs = [(ops.convert_to_numpy(v), ops.convert_to_numpy(w)) for v, w in zip(a.weights, b.weights, strict=True)]
    return max(np.max(np.abs(v - w)) / max(np.max(np.abs(v)), 1e-12) for v, w in pairs)


@pytest.fixture(scope="module")
def built(name):
    """A model that the tests only look at."""
    keras.utils.set_random_seed(0)
    return build(name)


@every_model_once
def test_outputs_are_named_logits(name, built):
    logits = logits_of(built, inputs(8))
    assert set(logits) == {o.name for o in built.outputs_info} | set(built.head.auxiliary(built.tasks))
    for output in built.outputs_info:
        assert tuple(logits[output.name].shape) == (8, output.units)
        assert keras.backend.standardize_dtype(logits[output.name].dtype) == "float32"


@every_model_once
def test_predict_gives_scores_in_row_order(name, built):
    x = inputs(40)
    scores = built.predict(x, batch_size=16, verbose=0)
    logits = {k: ops.convert_to_numpy(v) for k, v in built(x).items()}
    for output in built.outputs_info:
        z = logits[output.name].astype("float64")
        expected = {
            "binary": 1 / (1 + np.exp(-z)),
            "multiclass": np.exp(z) / np.exp(z).sum(-1, keepdims=True),
            "regression": z,
        }
        np.testing.assert_allclose(scores[output.name], expected[output.kind], atol=1e-5)


@every_model_once
def test_config_makes_the_same_model(name, built):
    clone = type(built).from_config(built.get_config())
    assert normalized(clone.get_config()) == normalized(built.get_config())
    assert [tuple(v.shape) for v in clone.weights] == [tuple(v.shape) for v in built.weights]
    for argument in type(built)._hyperparameters():
        assert hasattr(built, argument), f"argument {argument} is no attribute"


@pytest.mark.tensorflow
@every_model_once
@pytest.mark.parametrize("once", [("user_id",), ("user_id", "history", "age")])
def test_a_row_that_is_computed_once_changes_nothing(name, built, once):
    x = {n: np.repeat(values[:1], 9, axis=0) if n in once else values for n, values in inputs(9).items()}
    with computed_once({n: ops.convert_to_tensor(x[n][:1]) for n in once}, 9):
        found = built(x, training=False)
    for key, expected in built(x, training=False).items():
        np.testing.assert_allclose(found[key], expected, atol=1e-6)
    x, users = inputs(9), np.arange(9) % 3
    x |= {n: x[n][users] for n in once}
    with computed_once({n: ops.convert_to_tensor(x[n][:3]) for n in once}, users=ops.convert_to_tensor(users)):
        found = built(x, training=False)
    for key, expected in built(x, training=False).items():
        np.testing.assert_allclose(found[key], expected, atol=1e-6)


@every_model_once
def test_a_file_of_a_newer_format_is_refused(name, built):
    config = {**built.get_config(), "format": 99}
    with pytest.raises(ValueError, match="newer mtl_zoo"):
        mtl_zoo.model_info(name).cls.from_config(config)


@every_model
def test_fit_lowers_the_loss(name):
    model = compile_eagerly(build(name), keras.optimizers.Adam(0.02))
    losses = model.fit(inputs(), labels(), batch_size=64, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@every_model
def test_same_seed_same_result(name):
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        model = compile_eagerly(build(name), "adam")
        model.fit(inputs(), labels(), batch_size=32, epochs=1, verbose=0)
        weights.append(model)
    assert largest_difference(*weights) <= 1e-5


@every_model
def test_saved_model_goes_on_training_identically(name, tmp_path):
    model = build(name)
    compile_eagerly(model, keras.optimizers.Adam(0.01), loss_weights=dict.fromkeys(model.loss_names, 0.5))
    x, y = inputs(), labels()
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert type(loaded) is type(model)
    assert loaded.tasks == model.tasks
    assert loaded.get_compile_config() == model.get_compile_config()
    expected = model.predict(x, verbose=0)
    for key, value in loaded.predict(x, verbose=0).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6)
    for m in (model, loaded):
        m.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert largest_difference(model, loaded) <= 1e-5


@pytest.fixture(scope="module")
def moves(name):
    """A model away from zeros, where some layers start that begin as the identity, and what each loss moves in it."""
    keras.utils.set_random_seed(0)
    model = compile_eagerly(build(name))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(ops.convert_to_numpy(variable) + 0.05 * rng.normal(size=tuple(variable.shape)))
    x, y = inputs(), labels()
    found = gradients_of_each(model, lambda m: m.task_losses(y, m(x)))
    return model, {loss: {path for path, grad in grads.items() if np.any(grad)} for loss, grads in found.items()}


@every_model_once
def test_every_weight_gets_a_gradient(name, moves):
    model, moved = moves
    dead = {v.path for v in model.trainable_variables} - set.union(*moved.values())
    assert not dead


@every_model_once
def test_one_tasks_loss_leaves_the_private_parts_of_others_alone(name, moves):
    model, moved = moves
    read_by = {loss: {output.name} for loss, output in model.head.losses(model.tasks).items()}
    assert set(moved) == set(model.loss_names)
    for loss, paths in moved.items():
        for output in model.outputs_info:
            if output.name not in read_by[loss]:
                for variable in model.task_variables(output.name):
                    assert variable.path not in paths, f"{loss} moves {variable.path}"


@every_model
@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_to_five_tasks_of_mixed_kinds(name, count):
    needs_funnel = {"funnel", "middle_action"} & set(mtl_zoo.model_info(name).requires)
    if needs_funnel and count == 1:
        with pytest.raises(ValueError, match="`tasks` must hold one click"):
            mtl_zoo.create_model(name, features(), TASKS[:1])
        return
    tasks = FIVE_TASKS[:count] if count > 1 else [mtl_zoo.RegressionTask("watch_time")]
    model = compile_eagerly(build(name, tasks))
    y = labels_for(model)
    history = model.fit(inputs(), y if count > 1 else y["watch_time"], verbose=0).history
    assert np.isfinite(history["loss"]).all()


@every_model
def test_labels_of_shape_batch_and_batch_by_one_are_alike(name):
    model = compile_eagerly(build(name))
    x, y = inputs(), labels()
    flat = model.evaluate(x, y, verbose=0, return_dict=True)
    column = model.evaluate(x, {k: v[:, None] for k, v in y.items()}, verbose=0, return_dict=True)
    assert flat == pytest.approx(column, nan_ok=True)


@every_model
def test_unobserved_rows_do_not_count(name):
    model = compile_eagerly(build(name))
    x, y = inputs(), labels()
    y["like"][:] = np.nan
    y["like"][:4] = [0, 1, 1, 0]
    few = {k: v[:4] for k, v in y.items()}
    all_rows = model.task_losses(y, model(x))["like"]
    only_observed = model.task_losses(few, model({k: v[:4] for k, v in x.items()}))["like"]
    assert float(all_rows) == pytest.approx(float(only_observed), rel=1e-5)

    y["like"][:] = np.nan
    grads = gradients(model, lambda m: m.task_losses(y, m(x))["like"])
    assert all(not np.any(grad) for grad in grads.values())


@every_model
def test_sample_weights_by_row_and_by_task(name):
    model = compile_eagerly(build(name))
    x, y = inputs(), labels()
    keep = np.zeros(64, "float32")
    keep[:10] = 1.0
    kept = {k: v[:10] for k, v in y.items()}
    expected = model.task_losses(kept, model({k: v[:10] for k, v in x.items()}))
    by_row = model.task_losses(y, model(x), keep)
    for loss in model.loss_names:
        assert float(by_row[loss]) == pytest.approx(float(expected[loss]), rel=1e-4)
    by_task = model.task_losses(y, model(x), {"like": keep})
    assert float(by_task["like"]) == pytest.approx(float(expected["like"]), rel=1e-4)
    assert float(by_task["click"]) == pytest.approx(float(model.task_losses(y, model(x))["click"]), rel=1e-6)
    model.fit(x, y, sample_weight=keep, verbose=0)
    model.fit(x, y, sample_weight={"like": keep}, verbose=0)


@every_model
def test_trains_under_mixed_precision(name, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compile_eagerly(build(name), "adam")
        history = model.fit(inputs(), labels(), verbose=0).history
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    scores, expected = (ops.convert_to_numpy(m(inputs())["click"]) for m in (loaded, model))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@every_model
def test_a_typo_is_refused(name):
    with pytest.raises(TypeError, match=r"`num_expert5` is not an argument of .* Expected: one of"):
        mtl_zoo.create_model(name, features(), TASKS, num_expert5=2)
    with pytest.raises(TypeError, match="num_expert5"):
        mtl_zoo.model_info(name).cls(features(), TASKS, num_expert5=2)
    with pytest.raises(TypeError, match="optimiser"):
        build(name).compile(optimiser="adam")


@every_model
def test_a_wrong_or_forgotten_name_is_refused(name):
    model = build(name)
    every = dict.fromkeys(model.loss_names, 1.0)
    for argument in ("loss", "loss_weights"):
        value = "auto" if argument == "loss" else 1.0
        with pytest.raises(ValueError, match=rf"`{argument}` must name losses of the model.*unknown: \['klick'\]"):
            model.compile(**{argument: {**dict.fromkeys(every, value), "klick": value}})
    with pytest.raises(ValueError, match=r"`metrics` must name outputs.*unknown: \['klick'\]"):
        model.compile(metrics={"klick": ["auc"]})
    with pytest.raises(ValueError, match=r"`y` must hold the label of every task.*Missing: \['click'\]"):
        compile_eagerly(model)
        model.fit(inputs(), {k: v for k, v in labels().items() if k != "click"})
    with pytest.raises(ValueError, match=r"`x` must hold every feature.*Missing: \['age'\]"):
        model.predict({k: v for k, v in inputs().items() if k != "age"})


@every_model
def test_any_model_takes_the_funnel_head(name):
    if "head" not in mtl_zoo.model_info(name).cls._hyperparameters():
        pytest.skip("is a head on another backbone")
    model = build(name, (CLICK, CONVERSION), head=mtl_zoo.EntireSpace())
    scores = model.predict_on_batch(inputs())
    np.testing.assert_allclose(scores["click_and_conversion"], scores["click"] * scores["conversion"], atol=1e-6)
    assert model.loss_names == ("click", "click_and_conversion")
    on_backbone = build("esmm", (CLICK, CONVERSION), backbone=name, backbone_options={})
    assert set(on_backbone.output) == set(model.output)


@every_model_once
def test_extra_inputs_are_ignored_by_name(name, built):
    x = inputs(8)
    extra = {"a_column_before_all_others": np.zeros(8), **x}
    expected, found = built(x), built(extra)
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(found[key]), ops.convert_to_numpy(value))


@every_model
def test_a_loss_that_is_not_finite_stops_training(name):
    model = compile_eagerly(build(name, (*TASKS, mtl_zoo.RegressionTask("watch_time", scale=None))))
    y = labels()
    model.fit_tasks(y)  # in units of which the label is far out
    y["watch_time"][40] = 1e30
    with pytest.raises(FloatingPointError, match=r"loss of 'watch_time' is not finite at epoch 1, step 2"):
        model.fit(inputs(), y, batch_size=32, shuffle=False, verbose=0)
