"""What `fit` and `evaluate` call for each step does what Keras' own function does."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, Numeric, SharedBottom, evaluate
from mtl_zoo.options import MLP

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="functions of TensorFlow")

ROWS = 50


def make_model(**options):
    keras.utils.set_random_seed(0)
    features = [Categorical("user", size=9, dim=4), Numeric("age", normalization=None)]
    model = SharedBottom(features, [BinaryTask("click"), BinaryTask("like")], bottom_units=MLP((8,), dropout=0.5))
    model.compile("auto", **options)
    return model


def arrays(rows: int = ROWS):
    rng = np.random.default_rng(1)
    inputs = {"user": rng.integers(2, 11, rows), "age": rng.normal(size=rows).astype("float32")}
    return inputs, {name: rng.integers(0, 2, rows).astype("float32") for name in ("click", "like")}


def dataset(batch_size: int):
    import tensorflow as tf

    inputs, labels = arrays()
    inputs = {name: column.astype("int32" if name == "user" else "float32") for name, column in inputs.items()}
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(batch_size)


def trained(model, data, epochs: int = 3):
    """Logs and weights after training; dropout makes them tell how often a step ran."""
    x, y = data if isinstance(data, tuple) else (data, None)
    size = {"batch_size": 16} if y is not None else {}
    history = model.fit(x, y, epochs=epochs, verbose=0, **size).history
    return history, model.evaluate(x, y, verbose=0, return_dict=True, **size), model.get_weights()


def without_size(data):
    """Batches of which nobody knows how many there are."""
    return data.filter(lambda *_: True)


def without_weights(batch_size: int):
    """Batches that say that they have no weights."""
    return dataset(batch_size).map(lambda x, y: (x, y, None))


@pytest.mark.parametrize(
    "make",
    [arrays, lambda: dataset(16), lambda: dataset(10), lambda: without_size(dataset(16)), lambda: without_weights(16)],
    ids=["arrays", "dataset", "full_batches", "unknown_number", "without_weights"],
)
def test_it_trains_and_evaluates_as_keras_own_function(monkeypatch, make):
    ours = trained(make_model(), make())
    monkeypatch.setattr(SharedBottom, "_calls_step", lambda self: False)
    keras_own = trained(make_model(), make())
    assert ours[0] == keras_own[0] and ours[1] == keras_own[1]
    for mine, other in zip(ours[2], keras_own[2], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_batches_that_say_that_they_have_no_weights_are_those_without():
    model = make_model()
    pd.testing.assert_frame_equal(evaluate(model, without_weights(16)), evaluate(model, dataset(16)))


def test_no_trace_is_looked_for_at_a_step(monkeypatch):
    from tensorflow.python.eager.polymorphic_function import polymorphic_function

    def refuse(*_):
        raise AssertionError("a trace was looked for")

    model = make_model()
    model.fit(*arrays(), verbose=0, batch_size=8)
    monkeypatch.setattr(polymorphic_function.Function, "__call__", refuse)
    model.fit(*arrays(), verbose=0, batch_size=8, epochs=2)
    monkeypatch.setattr(SharedBottom, "_calls_step", lambda self: False)
    model.train_function = None
    with pytest.raises(AssertionError, match="a trace was looked for"):
        model.fit(*arrays(), verbose=0, batch_size=8)


def test_batches_of_other_sizes_come_between(monkeypatch):
    def run():
        model = make_model()
        for size in (16, 10, 25, 50, 7):
            model.fit(dataset(size), verbose=0)
        return [model.train_on_batch(*arrays(8)), *model.get_weights()]

    ours = run()
    monkeypatch.setattr(SharedBottom, "_calls_step", lambda self: False)
    for mine, other in zip(ours, run(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_what_gives_no_plain_tensors_is_left_to_keras():
    import tensorflow as tf

    from mtl_zoo.models._call_step import call_step

    given = []
    call = call_step(make_model(), lambda batch: pytest.fail("not for it"), lambda one: given.append(one) or "logs")
    optional = tf.data.Dataset.from_tensors(0).map(lambda x: (x, tf.experimental.Optional.empty(tf.TensorSpec(()))))
    iterators = [iter([1, 2]), iter(optional)]
    assert [call(one) for one in iterators] == ["logs", "logs"] and given == iterators


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"run_eagerly": True}], ids=["several", "eager"])
def test_other_executions_are_keras_own(monkeypatch, options):
    monkeypatch.setattr("mtl_zoo.models._training.call_step", lambda *_: pytest.fail("Keras calls several at once"))
    trained(make_model(**options), arrays(), epochs=1)


def test_functions_that_run_eagerly_do():
    import tensorflow as tf

    model, seen = make_model(), []
    model.train_step = lambda batch: seen.append(tf.executing_eagerly()) or {"loss": 0.0}
    tf.config.run_functions_eagerly(True)
    try:
        model.fit(*arrays(), verbose=0, batch_size=10)
    finally:
        tf.config.run_functions_eagerly(False)
    assert seen == [True] * 5


def test_an_iterator_is_not_kept():
    import gc
    import weakref

    model = make_model()
    model.make_train_function()
    iterator = iter(dataset(16))
    model.train_function(iterator)
    alive = weakref.ref(iterator)
    del iterator
    gc.collect()
    assert alive() is None
