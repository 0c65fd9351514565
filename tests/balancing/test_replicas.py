"""Two replicas train to the weights of one, random draws included. Needs a process of its own, for its two devices."""

import json
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, numpy as np, tensorflow as tf
    from mtl_zoo import BinaryTask, Categorical, Numeric, SharedBottom
    from mtl_zoo.balancing import DWA, FAMO, RLW

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    rng = np.random.default_rng(0)
    x = {"user_id": rng.integers(0, 32, 40).astype("int32"), "age": rng.normal(size=40).astype("float32")}
    y = {name: rng.integers(0, 2, 40).astype("float32") for name in ("click", "like")}
    y["like"][:10] = np.nan  # observed rows fall unevenly on the replicas, and not at all on one

    def train(strategy, method):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            features = [Categorical("user_id", size=30, dim=4), Numeric("age")]
            model = SharedBottom(features, [BinaryTask("click"), BinaryTask("like")], bottom_units=6, tower_units=4)
            optimizer = keras.optimizers.SGD(0.5)
        # Outside of the scope: the state must be mirrored all the same.
        model.compile(optimizer, balancing=method, metrics=None)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        return [w.numpy() for w in model.weights]

    worst = {}
    for method in (RLW(seed=5), DWA(steps=1), FAMO()):
        one = train(tf.distribute.get_strategy(), method)
        two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), method)
        scale = [max(float(np.abs(a).max()), 1e-3) for a in one]
        worst[method.method_name] = max(float(np.abs(a - b).max()) / s for a, b, s in zip(one, two, scale))
    try:
        train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), FAMO(reevaluates=True))
    except ValueError as error:
        worst["refused"] = str(error)
    print(json.dumps(worst))
    """
)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_mirrored_training_equals_one_device():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    worst = json.loads(done.stdout.strip().splitlines()[-1])
    assert "must not evaluate a batch twice with several replicas" in worst.pop("refused")
    assert set(worst) == {"rlw", "dwa", "famo"}
    assert max(worst.values()) <= 1e-5, worst
