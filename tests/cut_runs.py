"""Small trainings that are interrupted, for the tests of checkpoints."""

import keras
import numpy as np

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, Numeric
from mtl_zoo.options import MLP
from mtl_zoo.training import Checkpoints

ROWS, BATCH, EPOCHS = 88, 16, 3  # 6 batches an epoch, the last one short
TASKS = [BinaryTask("click"), BinaryTask("like")]


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends training after some steps, as a power cut would."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= self.model.steps_per_execution
        if self.left <= 0:
            raise Interrupted


def rows(seed=0):
    rng = np.random.default_rng(seed)
    x = {"user_id": rng.integers(0, 32, ROWS).astype("int32"), "age": rng.normal(size=ROWS).astype("float32")}
    return x, {task.name: rng.integers(0, 2, ROWS).astype("float32") for task in TASKS}


def make_model(balancing=None, optimizer="auto", steps=1, units=6, eager=True):
    features = [Categorical("user_id", size=30, dim=4), Numeric("age")]
    bottom = MLP((units,), dropout=0.3)
    model = mtl_zoo.create_model("shared_bottom", features, TASKS, bottom_units=bottom, tower_units=(4,))
    optimizer = optimizer() if callable(optimizer) else optimizer
    # Tracing a graph takes longer than these few steps.
    model.compile(optimizer, balancing=balancing, steps_per_execution=steps, run_eagerly=eager)
    return model


def train(folder, stop_after=None, seed=0, callbacks=(), data=None, every=None, **options):
    """(model, history or None if interrupted, callback)"""
    keras.utils.set_random_seed(seed)
    model = make_model(**options)
    saves = Checkpoints(folder, **({"every_steps": 4} if every is None else every))
    x, y = rows() if data is None else (data(saves), None)
    stop = [] if stop_after is None else [Interrupt(stop_after)]
    arguments = {} if data is not None else {"batch_size": BATCH}
    try:
        found = model.fit(
            x, y, epochs=EPOCHS, verbose=0, validation_data=rows(1), callbacks=[saves, *callbacks, *stop], **arguments
        )
    except Interrupted:
        return model, None, saves
    return model, found.history, saves


def assert_same(model, other):
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    for a, b in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
