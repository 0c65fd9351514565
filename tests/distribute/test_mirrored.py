"""Mirrored devices: what Keras' own functions cannot train. In a process of its own, for its two logical devices."""

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.tensorflow

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, tensorflow as tf
    import cluster_case

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    refused = []

    def refuse(**arguments):
        try:
            cluster_case.make_model(two, {}).compile(**arguments)
        except ValueError as error:
            refused.append(str(error))

    def scoped(make):
        with two.scope():
            return make()

    refuse(jit_compile=True)
    refuse(optimizer=keras.optimizers.Adam())
    refuse(optimizer=scoped(lambda: keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2)))
    refuse(optimizer=scoped(lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(gradient_accumulation_steps=2))))
    apart = {}
    for case in json.loads(sys.argv[1]):
        # One device takes one step an execution: its losses are those of every step.
        expected, found = cluster_case.run(one, {**case, "steps": 1}), cluster_case.run(two, case)
        expected["losses"] = expected["losses"][[2, 4, 7, 9]] if case.get("steps") == 3 else expected["losses"]
        apart[str(case)] = cluster_case.differences(expected, found)
    print(json.dumps({"apart": apart, "refused": refused}))
    """
)
# 65 rows are 5 batches, the last of one row: a replica has none, and an execution of three steps two.
# The bias before a normalisation has no gradient but rounding, which Adam would make a step of.
CASES = [{"accumulate": 2, "steps": 3}, {"optimizer": "sgd", "steps": 3, "balancing": "pcgrad", "norm": "batch"}]


def test_what_keras_cannot_train():
    command = [sys.executable, "-c", SCRIPT, json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["apart"]) == len(CASES)
    assert not any(found["apart"].values()), found["apart"]
    jit, outside, average, scaled = found["refused"]
    assert jit.startswith("`jit_compile` must be False under a tf.distribute strategy")
    assert outside.startswith("`optimizer` must be made in the scope of the model's strategy")
    assert average.startswith("`use_ema` must be False with accumulated gradients and several replicas")
    assert scaled.startswith("`gradient_accumulation_steps` must be None with a scaled loss and several replicas")
