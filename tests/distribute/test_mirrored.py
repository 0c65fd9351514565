"""Mirrored devices: what Keras' own functions cannot train. In a process that has two logical ones."""

import json
import textwrap

import pytest
import two_devices

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

    def optimizer(**options):
        with two.scope():
            return keras.optimizers.Adam(gradient_accumulation_steps=2, **options)

    model = cluster_case.make_model(two, {})
    with two.scope():
        scaled = keras.optimizers.LossScaleOptimizer(optimizer())
    for arguments in (
        {"jit_compile": True},
        {"optimizer": keras.optimizers.Adam()},
        {"optimizer": optimizer(use_ema=True)},
        {"optimizer": scaled},
    ):
        try:
            with two.scope():
                model.compile(**arguments)
        except ValueError as error:
            refused.append(str(error))
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
CASE = {"accumulate": 2, "steps": 3}
# The bias before a normalisation has no gradient but rounding, which Adam would make a step of.
MORE = [
    {**CASE, "balancing": "pcgrad"},
    {"optimizer": "sgd", "steps": 3, "norm": "batch"},
    {"optimizer": "auto", "balancing": "famo"},
]


def train(cases):
    (found,) = two_devices.found(SCRIPT, json.dumps(cases))
    assert len(found["apart"]) == len(cases)
    assert not any(found["apart"].values()), found["apart"]
    return found["refused"]


@pytest.mark.slow
def test_more_of_what_keras_cannot_train():
    train(MORE)


def test_what_keras_cannot_train():
    jit, outside, average, scaled = train([CASE])
    assert jit.startswith("`jit_compile` must be False under a tf.distribute strategy")
    assert outside.startswith("`optimizer` must be made in the scope of the model's strategy")
    assert average.startswith("`use_ema` must be False with accumulated gradients and several replicas")
    assert scaled.startswith("`gradient_accumulation_steps` must be None with a scaled loss and several replicas")
