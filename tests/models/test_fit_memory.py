"""What is left of a call of `fit`: neither its rows nor, once the model is dropped, the model."""

import contextlib
import gc
import time
import tracemalloc
import weakref

import keras
import numpy as np
import pytest

from mtl_zoo import BinaryTask, Numeric, SharedBottom
from mtl_zoo.features.batching import batches_of_epochs

ROWS, COLUMNS = 50_000, 20


def make_model():
    features = [Numeric(f"n{i}") for i in range(COLUMNS)]
    model = SharedBottom(features, [BinaryTask("click"), BinaryTask("like")], bottom_units=2, tower_units=2)
    model.compile("adam", metrics=None)
    return model


def draw(rows):
    rng = np.random.default_rng(0)
    x = {f"n{i}": rng.normal(size=rows).astype("float32") for i in range(COLUMNS)}
    return x, {name: rng.integers(0, 2, rows).astype("float32") for name in ("click", "like")}


@pytest.mark.extended
def test_the_model_can_be_dropped():
    model, (x, y) = make_model(), draw(100)
    model.fit(x, y, verbose=0)
    gone = weakref.ref(model)
    del model
    keras.backend.clear_session()
    assert gone() is None


@pytest.mark.extended
@pytest.mark.tensorflow
@pytest.mark.parametrize("fails", [False, True])
def test_the_rows_are_let_go(fails):
    model, (x, y) = make_model(), draw(ROWS)
    model.fit(*draw(100), verbose=0)  # traced, so that what follows takes no memory of its own

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if fails:
                raise RuntimeError("stop")

    tracemalloc.start()
    try:
        for _ in range(3):
            if fails:
                with pytest.raises(RuntimeError, match="stop"):
                    model.fit(x, y, batch_size=10_000, verbose=0, callbacks=[Stop()])
            else:
                model.fit(x, y, batch_size=10_000, verbose=0, callbacks=[Stop()])
        assert falls_below(ROWS * COLUMNS * 4), "a copy of the rows, or more, is still held"
    finally:
        tracemalloc.stop()


def falls_below(size):
    """What is held, and no garbage; a batch that was read ahead of the last step is let go by a thread of its own."""
    until = time.monotonic() + 20
    while True:
        gc.collect()
        if tracemalloc.get_traced_memory()[0] < size:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


@pytest.mark.extended
@pytest.mark.tensorflow
def test_what_reads_ahead_ends_once_the_rows_are_let_go(capfd):
    import tensorflow as tf

    x, y = draw(ROWS)
    with contextlib.ExitStack() as fit:
        batches = iter(batches_of_epochs(x, y, None, 500, seed=None, epoch=lambda: 0, at_end=fit))
        next(batches)
    with pytest.raises(tf.errors.OpError, match="was expected to contain 100 elements"):
        for _ in batches:
            pass
    assert "generator" not in capfd.readouterr().err
