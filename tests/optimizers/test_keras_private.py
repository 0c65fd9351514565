"""The private Keras names that `mtl_zoo/_keras_private.py` uses are there."""

import keras
import pytest

from mtl_zoo import _keras_private
from mtl_zoo.optimizers import LazyAdam, RowWiseAdagrad

ADVICE = "keras {} has no {}.{} any more: mtl_zoo/_keras_private.py must find another way"


def test_optimizer_hooks():
    optimizer = keras.optimizers.Adam()
    names = _keras_private.OPTIMIZER_HOOKS
    if keras.backend.backend() == "tensorflow":
        names += _keras_private.TENSORFLOW_OPTIMIZER_HOOKS
    for name in names:
        assert hasattr(optimizer, name), ADVICE.format(keras.__version__, "Optimizer", name)


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
        def prepare_gradients(self, gradients):
            called.append("prepare")
            return super().prepare_gradients(gradients)

        def clip_gradients(self, gradients, clip):
            called.append("clip")
            return super().clip_gradients(gradients, clip)

    variable = keras.Variable([1.0])
    Watched(0.5).apply([keras.ops.ones(1)], [variable])
    assert called == ["prepare", "clip"]
    assert float(variable[0]) == 0.5


def test_built_variables_and_slots_of_ours():
    variable = keras.Variable([[1.0]])
    for optimizer in (LazyAdam(), RowWiseAdagrad()):
        optimizer.build([variable])
        assert _keras_private.built_variables(optimizer)[0] is variable
    assert _keras_private.slots(optimizer, "accumulators") is optimizer.accumulators
