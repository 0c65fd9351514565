"""A mirrored model is extended and held to the day before as one on a single device is. In a process that has two."""

import textwrap

import pytest
import two_devices

pytestmark = pytest.mark.tensorflow

SCRIPT = textwrap.dedent(
    """
    import json
    import keras, numpy as np, pandas as pd, tensorflow as tf
    from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
    from mtl_zoo.continual import L2ToPrevious
    from mtl_zoo.optimizers import LazyAdam

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategies = [tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])]

    def rows(low, high, seed):
        rng = np.random.default_rng(seed)
        return pd.DataFrame({"item": rng.integers(low, high, 32), "click": rng.integers(0, 2, 32)})

    monday, tuesday = rows(0, 6, 0), rows(3, 9, 1)
    found = []
    for strategy in strategies:
        keras.utils.set_random_seed(0)
        with strategy.scope():
            transform = FeatureTransform(Categorical("item", dim=3), BinaryTask("click")).fit(monday)
            model = SharedBottom(transform, bottom_units=(4,), tower_units=())
            model.compile(LazyAdam(0.05), metrics=None)
        model.fit(monday, batch_size=16, shuffle=False, verbose=0)
        made = model.extended(model.transform.extend(tuesday), rows="mean")
        same = all((model.predict(monday, verbose=0)[t] == made.predict(monday, verbose=0)[t]).all() for t in ["click"])
        made.fit(tuesday, batch_size=16, epochs=2, shuffle=False, verbose=0, anchor=L2ToPrevious(0.5))
        variables = [*made.weights, *made.optimizer.variables]
        found.append(([keras.ops.convert_to_numpy(v).tolist() for v in variables], bool(same)))
    (one, same_one), (two, same_two) = found
    apart = max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in zip(one, two, strict=True))
    print(json.dumps({"apart": apart, "same": [same_one, same_two]}))
    """
)


def test_two_replicas_do_what_one_does():
    (found,) = two_devices.found(SCRIPT)
    assert found["same"] == [True, True] and found["apart"] < 1e-5
