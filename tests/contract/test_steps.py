"""What every training step must do; the registry is walked, so a new one is tested at once."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from toys import inputs, labels

from mtl_zoo import BinaryTask, Categorical, Numeric, create_model
from mtl_zoo.balancing import FAMO, PCGrad
from mtl_zoo.steps import STEPS, Step, as_step, list_steps, register_step

pytestmark = pytest.mark.tensorflow

# The balancing method that a step asks for. A step of yours that needs one is entered here.
BALANCING = {"balanced": lambda: PCGrad(shuffle=False), "reevaluated": lambda: FAMO(reevaluates=True)}


def trained(name, steps=1, eager=True, **options):
    """A small model after some steps, its weights before them, and the logs."""
    keras.utils.set_random_seed(3)
    features = [Categorical("click", size=6, dim=4), Numeric("age")]
    tasks = [BinaryTask("click"), BinaryTask("like")]
    model = create_model("shared_bottom", features, tasks, bottom_units=(6,), tower_units=(4,))
    balancing = BALANCING[name]() if name in BALANCING else None
    model.compile(keras.optimizers.SGD(0.5), balancing=balancing, step=name, run_eagerly=eager, **options)
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    x, y = {n: inputs(32)[n] for n in model.input}, {n: labels(32)[n] for n in ("click", "like")}
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(steps)]
    return model, before, logs


@pytest.fixture(scope="module", params=list_steps())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def after(name):
    return trained(name, steps=5)


def test_weights_move_and_the_loss_falls(after):
    model, before, logs = after
    for variable in model.trainable_variables:
        value = ops.convert_to_numpy(variable)
        assert np.isfinite(value).all() and np.any(value != before[variable.path]), variable.path
    assert int(model.optimizer.iterations) == 5
    model.reset_metrics()
    assert logs[-1]["click_loss"] < logs[0]["click_loss"]


def test_logs_are_those_of_the_model_and_of_all_rows(after):
    model, _, logs = after
    first = {name: float(value) for name, value in logs[0].items()}
    assert set(first) == {"loss", *(f"{loss}_loss" for loss in model.loss_names), "click_auc", "like_auc"}
    if model.balancing is None or model.balancing.needs_task_gradients:  # others weigh the losses themselves
        assert first["loss"] == pytest.approx(first["click_loss"] + first["like_loss"], rel=1e-4)


def test_a_graph_takes_the_same_steps(name, after):
    model, _, logs = after
    in_graph, _, again = trained(name, steps=5, eager=False)
    for key, value in logs[-1].items():
        assert float(again[-1][key]) == pytest.approx(float(value), rel=1e-4), key
    for a, b in zip(model.trainable_variables, in_graph.trainable_variables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-5, err_msg=a.path)


def test_a_model_goes_on_with_its_step_after_it_was_saved(name, after, tmp_path):
    model, _, _ = after
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.training_step) is STEPS[name]
    assert loaded.training_step.get_config() == model.training_step.get_config()
    assert loaded.training_step is not model.training_step


def test_a_step_has_a_docstring_and_a_config(name):
    cls = STEPS[name]
    assert cls.step_name == name and cls.__doc__ and ">>> " in cls.__doc__
    step = cls()
    assert cls.from_config(step.get_config()).get_config() == step.get_config()


def test_the_step_of_the_recipe_is_one(monkeypatch):
    """CONTRIBUTING.md's step, as it stands there."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Adding a training step\n.*?^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(STEPS, "_entries", dict(STEPS._entries))
    monkeypatch.setattr(STEPS, "_owners", dict(STEPS._owners))
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "signed"})
    found = trained("signed", steps=5)
    test_weights_move_and_the_loss_falls(found)
    test_logs_are_those_of_the_model_and_of_all_rows(found)
    test_a_step_has_a_docstring_and_a_config("signed")
    test_a_graph_takes_the_same_steps("signed", found)


# What all of them refuse.


def test_the_default_is_what_the_balancing_method_asks_for():
    assert as_step(None).step_name == "plain"
    assert as_step(None, PCGrad()).step_name == "balanced"
    assert as_step(None, FAMO(reevaluates=True)).step_name == "reevaluated"
    assert as_step(None, FAMO()).step_name == "plain"


@pytest.mark.parametrize(
    ("step", "balancing", "error", "message"),
    [
        ("quick", None, ValueError, "`step` must be one of"),
        (3, None, TypeError, "`step` must be a name or a Step. Received: step=3. Expected: one of"),
        ("plain", "pcgrad", ValueError, "`step` must be None or 'balanced' with this balancing method"),
        ("balanced", None, ValueError, "`balancing` must be given with step='balanced'"),
        ("reevaluated", "famo", ValueError, "`balancing` must evaluate a batch twice with step='reevaluated'"),
    ],
)
def test_what_does_not_fit(step, balancing, error, message):
    model = create_model("shared_bottom", [Numeric("age")], [BinaryTask("click")], bottom_units=(2,), tower_units=())
    with pytest.raises(error, match=message):
        model.compile("sgd", balancing=balancing, step=step)


def test_the_names_are_taken_once():
    with pytest.raises(ValueError, match="`name` must not be taken. Received: 'plain'"):

        @register_step("plain")
        class Other(Step):
            """Another."""

    with pytest.raises(NotImplementedError, match=r"Step must define `run\(model, batch\)`"):
        Step().run(None, None)
