"""Retrieval on two mirrored devices, with the negatives of the global batch: the weights of one device.

In a process that has two logical devices.
"""

import textwrap

import pytest
import two_devices

SCRIPT = textwrap.dedent(
    """
    import json, sys
    import keras, numpy as np, tensorflow as tf
    from mtl_zoo import BinaryTask, Categorical, RetrievalTask, SharedBottom

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    rng = np.random.default_rng(0)
    features = [
        Categorical("user", size=6, dim=4, side="user"), Categorical("item", size=9, dim=4, side="item"),
    ]
    rows = 17
    x = {"user": rng.integers(0, 8, rows).astype("int32"), "item": rng.integers(0, 11, rows).astype("int32")}
    y = {"like": rng.integers(0, 2, rows).astype("float32"), "watch": rng.integers(0, 2, rows).astype("float32")}
    y["watch"][3:6] = np.nan
    for balancing in [sys.argv[1] or None]:
        found = []
        for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
            keras.utils.set_random_seed(0)
            with strategy.scope():
                retrieval = RetrievalTask("watch", tower_units=(4,), hard_negatives=4)
                model = SharedBottom(features, [BinaryTask("like"), retrieval], bottom_units=(4,), tower_units=())
                if found:
                    model.set_weights(found[0][0])
                start = model.get_weights()
                model.compile("sgd", metrics=None, balancing=balancing)
            logs = model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)  # the last batch has one row
            found.append([start, {w.path: np.array(w) for w in model.weights}, logs.history["watch_loss"]])
        (_, one, losses), (_, two, others) = found
        apart = {path: float(np.abs(one[path] - other).max()) for path, other in zip(one, two.values())}
        moved = max(float(np.abs(one[path] - w).max()) for path, w in zip(one, start))
        print(json.dumps([apart, moved, float(np.abs(np.subtract(losses, others)).max())]))
    """
)


@pytest.mark.tensorflow
@pytest.mark.parametrize("balancing", ["", pytest.param("pcgrad", marks=pytest.mark.slow)])
def test_two_mirrored_devices_train_as_one(balancing):
    ((apart, moved, losses),) = two_devices.found(SCRIPT, balancing)
    assert moved > 1e-3 and losses < 1e-5
    assert max(apart.values()) < 1e-5, {path: gap for path, gap in apart.items() if gap >= 1e-5}
