"""Balanced batches and bias features on two mirrored devices: the numbers of one. In a process of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

SCRIPT = textwrap.dedent(
    """
    import json
    import keras, numpy as np, tensorflow as tf
    import mtl_zoo
    from mtl_zoo import BalancedBatches, BinaryTask, Categorical

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    rng = np.random.default_rng(0)
    x = {name: rng.integers(0, 8, 300).astype("int32") for name in ("item", "position")}
    y = {"click": (rng.random(300) < 0.1).astype("float32")}
    features = [Categorical("item", size=6, dim=2), Categorical("position", size=6, dim=2, bias=True)]

    def train(strategy):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            task = BinaryTask("click", bias="multiply")
            model = mtl_zoo.SharedBottom(features, task, bottom_units=(4,), tower_units=())
            model.compile("sgd", metrics=None)
        model.fit(x, y, batch_size=32, epochs=2, sampling=BalancedBatches({"click": 0.5}), verbose=0)
        return model.predict({"item": x["item"]}, verbose=0)["click"]

    one, two = (train(s) for s in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])))
    print(json.dumps({"apart": float(np.abs(one - two).max()), "spread": float(np.ptp(one))}))
    """
)


def test_two_devices_train_as_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["apart"] < 1e-5 < found["spread"]
