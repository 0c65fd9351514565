"""Steps that learn to adapt on two mirrored devices. In a process of its own, for its two logical devices."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

SCRIPT = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, "tests")
    import numpy as np, tensorflow as tf
    import keras
    from mtl_zoo import BinaryTask, Categorical, Numeric, create_model
    from mtl_zoo.features import make_episodes
    from mtl_zoo.steps import MAML, Reptile

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    rng = np.random.default_rng(0)
    x = {"city": rng.integers(0, 6, 48).astype("int32"), "age": rng.normal(size=48).astype("float32")}
    y = {"click": rng.integers(0, 2, 48).astype("float32"), "like": rng.integers(0, 2, 48).astype("float32")}

    def trained(strategy, step):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            features = [Categorical("city", size=4, dim=2), Numeric("age")]
            tasks = [BinaryTask("click"), BinaryTask("like")]
            model = create_model("shared_bottom", features, tasks, bottom_units=(4,), tower_units=(3,))
            model.compile(keras.optimizers.SGD(0.3), step=step)
        # Four episodes a batch, two for each device.
        data = make_episodes(x, y, np.arange(48) // 6, support=2, query=4, episodes=4, seed=0)
        losses = model.fit(data, epochs=3, verbose=0).history["loss"]
        return losses, model.get_weights()

    for step in (MAML(support=2, query=4, inner_rate=0.3), Reptile(support=2, query=4, inner_steps=2)):
        (losses, weights), (mirrored, copies) = trained(one, step), trained(two, step)
        np.testing.assert_allclose(losses, mirrored, rtol=1e-5)
        for a, b in zip(weights, copies, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    print("equal")
    """
)


def test_two_devices_take_the_steps_of_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "equal"
