"""The private Keras names that `mtl_zoo/_keras_private.py` uses are there."""

import keras
import pytest

from mtl_zoo import _keras_private
from mtl_zoo.optimizers import LazyAdam, RowWiseAdagrad

TRAINER = "keras {} has another {}: mtl_zoo/_keras_private.py must find another way"

ADVICE = "keras {} has no {}.{} any more: mtl_zoo/_keras_private.py must find another way"


def test_optimizer_hooks():
    optimizer = keras.optimizers.Adam()
    names = _keras_private.OPTIMIZER_HOOKS
    if keras.backend.backend() == "tensorflow":
        names += _keras_private.TENSORFLOW_OPTIMIZER_HOOKS
    for name in names:
        assert hasattr(optimizer, name), ADVICE.format(keras.__version__, "Optimizer", name)


@pytest.mark.tensorflow
def test_hooks_of_training_on_several_devices():
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)
    optimizer.build([keras.Variable([1.0])])
    for name in _keras_private.ACCUMULATION_HOOKS:
        assert hasattr(optimizer, name), ADVICE.format(keras.__version__, "Optimizer", name)
    for name in _keras_private.TENSORFLOW_TRAINER_HOOKS:
        assert hasattr(keras.Model, name), ADVICE.format(keras.__version__, "Model", name)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of Keras' trainer on JAX")
def test_hooks_of_steps_on_jax():
    for name in _keras_private.JAX_TRAINER_HOOKS:
        assert hasattr(keras.Model, name), ADVICE.format(keras.__version__, "Model", name)


@pytest.mark.tensorflow
def test_gradients_are_added_up_as_keras_does_it():
    def train(apply):
        variable = keras.Variable([1.0, 2.0])
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1, clipnorm=0.5, gradient_accumulation_steps=2)
        optimizer.build([variable])
        for step in range(5):
            apply(optimizer, keras.ops.convert_to_tensor([1.0, float(step)]), variable, step % 2 == 1)
        return variable.numpy(), _keras_private.steps_taken(optimizer), _keras_private.has_waiting_gradients(optimizer)

    def ours(optimizer, gradient, variable, update):
        with _keras_private.accumulation(optimizer, update):
            optimizer.apply([gradient], [variable])

    expected, steps, waiting = train(lambda optimizer, gradient, variable, _: optimizer.apply([gradient], [variable]))
    found = train(ours)
    assert found[0] == pytest.approx(expected, rel=1e-6)
    assert found[1:] == (steps, waiting) == (5, True)


@pytest.mark.parametrize("name", _keras_private.SLOTS)
def test_slots(name):
    options = {"Adam": {"amsgrad": True}, "SGD": {"momentum": 0.5}}.get(name, {})
    optimizer = getattr(keras.optimizers, name)(**options)
    optimizer.build([keras.Variable([1.0])])
    for slot in _keras_private.SLOTS[name]:
        assert hasattr(optimizer, slot), ADVICE.format(keras.__version__, name, slot)
        assert len(_keras_private.slots(optimizer, slot.lstrip("_"))) == 1


def test_the_hooks_are_called():
    called = []

    class Watched(_keras_private.GradientHooks, keras.optimizers.SGD):
        def own_gradients(self, gradients):
            called.append("own")
            return super().own_gradients(gradients)

        def prepare_gradients(self, gradients):
            called.append("prepare")
            return super().prepare_gradients(gradients)

        def clip_gradients(self, gradients, clip):
            called.append("clip")
            return super().clip_gradients(gradients, clip)

    variable = keras.Variable([1.0])
    Watched(0.5).apply([keras.ops.ones(1)], [variable])
    # On JAX there are no replicas whose gradients are summed.
    sums = keras.backend.backend() == "tensorflow"
    assert called == [*(["own"] if sums else []), "prepare", "clip"]
    assert float(variable[0]) == 0.5


def test_built_variables_and_slots_of_ours():
    variable = keras.Variable([[1.0]])
    for optimizer in (LazyAdam(), RowWiseAdagrad()):
        optimizer.build([variable])
        assert _keras_private.built_variables(optimizer)[0] is variable
    assert _keras_private.slots(optimizer, "accumulators") is optimizer.accumulators


def small_model():
    x = keras.Input((2,), name="x")
    hidden = keras.layers.Dense(3, name="hidden")(x)
    return keras.Model(x, {"a": keras.layers.Dense(1, name="a")(hidden), "b": hidden})


def test_the_loss_of_the_logs_is_what_was_tracked():
    model = small_model()
    model.compile("sgd")
    for loss, rows in ((2.0, 3), (4.0, 1)):
        _keras_private.track_loss(model, keras.ops.convert_to_tensor(loss), {"x": keras.ops.zeros((rows, 2))})
    found = model.get_metrics_result()
    assert float(found["loss"]) == pytest.approx(2.5), TRAINER.format(keras.__version__, "loss tracker")


def test_a_forgotten_layer_is_no_part_of_the_model():
    model = small_model()
    count = len(model.weights)
    model.extra = keras.layers.Dense(1)
    model.extra.build((None, 2))
    assert len(model.weights) == count + 2
    _keras_private.forget_layer(model, model.extra)
    assert len(model.weights) == count, TRAINER.format(keras.__version__, "list of a model's layers")
    _keras_private.forget_layer(model, model.extra)  # not there any more: nothing happens
