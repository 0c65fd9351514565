"""Two replicas train to the weights of one. Each case needs a process of its own, for its two logical devices."""

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
    from toys import build, inputs, labels

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    def train(strategy):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            model = build("mmoe")
            model.compile(keras.optimizers.SGD(0.5))
        x, y = inputs(72), labels(72)
        y["like"][:40] = np.nan  # observed rows fall unevenly on the replicas
        logs = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history
        return [w.numpy() for w in model.weights], {k: float(v[-1]) for k, v in logs.items()}

    one, logs_one = train(tf.distribute.get_strategy())
    two, logs_two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(one, two))
    print(json.dumps({"worst": worst, "one": logs_one, "two": logs_two}))
    """
)


@pytest.mark.slow  # distribute/test_mirrored.py compares more of a smaller model
@pytest.mark.tensorflow
def test_mirrored_training_equals_one_device():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["worst"] <= 1e-5
    # Metrics are global: those of the observed rows of all replicas.
    for name in ("click_loss", "conversion_loss", "like_loss"):
        assert result["two"][name] == pytest.approx(result["one"][name], rel=1e-4)
