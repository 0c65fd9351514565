"""A training script that runs as one process, on mirrored devices and as a worker of a cluster; tests compare them.

`python tests/cluster_case.py FOLDER CASE`: writes what a process found into FOLDER/<its index>.npz.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

COLUMNS = ("user_id", "age")


def data(rows, seed=0):
    """Rows of which the first half has no label of `like`, so that a replica may see none."""
    from toys import inputs, labels

    x, y = inputs(rows, seed), labels(rows, seed + 1)
    y["like"][: rows // 2] = np.nan
    return {name: x[name] for name in COLUMNS}, {name: y[name] for name in ("click", "conversion", "like")}


def make_model(strategy, case):
    from toys import TASKS, features

    import mtl_zoo
    from mtl_zoo.options import MLP

    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = mtl_zoo.create_model(
            "shared_bottom",
            [feature for feature in features() if feature.name in COLUMNS],
            TASKS,
            bottom_units=MLP((6,), norm=case.get("norm"), dropout=case.get("dropout", 0.0)),
            tower_units=(4,),
        )
        optimizer = case.get("optimizer", "auto")
        if "accumulate" in case:
            optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=case["accumulate"])
        model.compile(optimizer, balancing=case.get("balancing"), steps_per_execution=case.get("steps", 1))
    return model


class Watch(keras.callbacks.Callback):
    """Keeps the losses of the steps."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])


def run(strategy, case):
    """Arrays by name: weights, logs, losses by step, evaluation, predictions."""
    import tensorflow as tf

    model = make_model(strategy, case)
    (x, y), validation = data(case.get("rows", 65)), data(37, seed=5)
    if case.get("own_seeds"):
        np.random.seed(case["own_seeds"])
    watch = Watch()
    options = {"batch_size": 16, "epochs": 2, "verbose": 0}
    history = model.fit(x, y, validation_data=validation, callbacks=[watch], **options).history
    found = {f"weight {i}": w.numpy() for i, w in enumerate(model.weights)}
    found |= {f"history {name}": np.array(values) for name, values in history.items()}
    found["losses"] = np.array(watch.losses)
    evaluated = model.evaluate(*validation, batch_size=16, verbose=0, return_dict=True)
    found |= {f"evaluated {name}": np.array(value) for name, value in evaluated.items()}
    batches = tf.data.Dataset.from_tensor_slices(validation[0]).batch(10)
    for how, scores in (
        ("arrays", model.predict(validation[0], batch_size=10, verbose=0)),
        ("steps", model.predict(validation[0], batch_size=10, steps=3, verbose=0)),
        ("dataset", model.predict(batches, verbose=0)),
    ):
        found |= {f"predicted {how} {name}": values for name, values in scores.items()}
    return found


def differences(one, other, tolerance=1e-5):
    """Names of the arrays that are not equal, and by how much of their largest value; a tiny one is rounding."""
    assert set(one) == set(other), sorted(set(one) ^ set(other))
    apart = {}
    for name, a in one.items():
        b = other[name]
        gap = np.inf if a.shape != b.shape else np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)
        if not gap <= tolerance:
            apart[name] = float(gap)
    return apart


def main(folder, case):
    import tensorflow as tf

    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # Workers need not agree on a seed: the chief's counts.
    found = run(strategy, {**case, "own_seeds": index and 7 * index})
    np.savez(Path(folder) / f"{index}.npz", **found)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    main(sys.argv[1], json.loads(sys.argv[2]))
