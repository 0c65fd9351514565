"""Two replicas train to the weights of one. In a process that has two logical devices."""

import json
import textwrap

import pytest
import two_devices

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, numpy as np, tensorflow as tf
    from toys import inputs, labels
    from mtl_zoo import BinaryTask, Categorical, Numeric, Sequence, create_model
    from mtl_zoo.balancing import create_balancing
    from mtl_zoo.options import MLP

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    features = [
        Categorical("click", size=6, dim=4),
        Sequence("history", size=6, dim=4, key="click", length=5),
        Numeric("age"),
    ]
    tasks = [BinaryTask("click"), BinaryTask("like"), BinaryTask("conversion", sample_space="click")]

    def train(name, strategy, **options):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            # Gradients of a synchronised normalisation cross the replicas.
            bottom = MLP((6,), norm="batch")
            model = create_model("shared_bottom", features, tasks, bottom_units=bottom, tower_units=(4,))
            optimizer = keras.optimizers.SGD(0.5)
        # Not in the scope, and with a method that was made out of it.
        model.compile(optimizer, balancing=create_balancing(name, **options), metrics=None)
        x, y = {n: column for n, column in inputs(48).items() if n in model.input}, labels(48)
        y = {task.name: y[task.name] for task in tasks}
        y["like"][:24] = np.nan  # in a step, observed rows fall unevenly on the replicas, or on none
        logs = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
        return model, {k: v[-1] for k, v in logs.items()}

    found = {}
    for name, options in json.loads(sys.argv[1]):
        one, logs_one = train(name, tf.distribute.get_strategy(), **options)
        two, logs_two = train(name, mirrored, **options)
        pairs = [(a.numpy(), b.numpy()) for a, b in zip(one.weights, two.weights)]
        both = [[p.numpy() for p in mirrored.experimental_local_results(w.value)] for w in two.weights]
        found[name] = {
            "worst": max(float(np.abs(a - b).max() / max(np.abs(a).max(), 0.1)) for a, b in pairs),
            "apart": max(float(np.abs(parts[0] - parts[-1]).max()) for parts in both),
            "copies": min(len(parts) for parts in both),
            "logs": max(abs(logs_one[k] - logs_two[k]) for k in logs_one),
            "skipped": two.balancing.skipped.numpy().tolist(),
        }
    print(json.dumps(found))
    """
)
# What differs between replicas: rows of tables, branches, the rows of the representation, state by parameter.
METHODS = [("pcgrad", {"include_tables": True, "update_every": 2}), ("grad_drop", {}), ("moco", {})]


@pytest.mark.extended
@pytest.mark.tensorflow
def test_mirrored_training_equals_one_device():
    (found,) = two_devices.found(SCRIPT, json.dumps(METHODS))
    for name, _ in METHODS:
        assert found[name]["worst"] <= 1e-5, name
        assert found[name]["apart"] == 0, name
        assert found[name]["copies"] == 2, name
        assert found[name]["logs"] <= 1e-4, name
        assert found[name]["skipped"][1] == 1, name
