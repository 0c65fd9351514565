"""Two replicas train to the weights of one. In a process that has two logical devices."""

import textwrap

import pytest
import two_devices

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, numpy as np, tensorflow as tf
    from toys import CLICK, build, inputs, labels
    from mtl_zoo.optimizers import LazyAdam, LazySGD, RowWiseAdagrad, SplitOptimizer

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def train(make, strategy):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            model = build("shared_bottom", [CLICK])
            model.compile(make(), metrics=None)
        model.fit(inputs(40), {"click": labels(40)["click"]}, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return model

    def apart(model):
        variables = [v.value for v in (*model.weights, *model.optimizer.variables)]
        parts = [[p.numpy() for p in mirrored.experimental_local_results(v)] for v in variables]
        assert all(len(p) == 2 for p in parts), "a variable or slot is not mirrored"
        return max(float(np.abs(a - b).max()) for a, b in parts)

    def whole_tables(model):
        # Ops of a step that give as much as a whole table.
        x, y = inputs(32), {"click": labels(32)["click"]}
        step = tf.function(lambda: mirrored.run(model.train_step, args=((x, y),)), autograph=False)
        shapes = [tuple(t.shape) for t in model.get_layer("embedding").tables]
        ops = step.get_concrete_function().graph.get_operations()
        return [op.name for op in ops for out in op.outputs if out.shape.rank == 2 and tuple(out.shape) in shapes]

    def split():
        # Clipping must see the gradient of the global batch, not that of each replica.
        return SplitOptimizer(RowWiseAdagrad(0.05, global_clipnorm=0.1), LazyAdam(0.01, clipnorm=0.1))

    if sys.argv[1] == "float16":
        keras.config.set_dtype_policy("mixed_float16")
        model = train(lambda: LazyAdam(0.01), mirrored)
        print(json.dumps({"apart": apart(model), "steps": int(model.optimizer.iterations.numpy())}))
        sys.exit()

    one, two = train(split, tf.distribute.get_strategy()), train(split, mirrored)
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(one.weights, two.weights)]
    worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    found = {"worst": worst, "apart": apart(two), "whole": whole_tables(two)}

    def rows_of(different):
        # Two devices with batches of 60 ids each, among which so many differ.
        with mirrored.scope():
            table, optimizer = keras.Variable(np.zeros((200, 2), "float32")), LazySGD(1.0)
            optimizer.build([table])
        ids = [tf.constant(np.arange(60) % count) for count in different]
        own = mirrored.experimental_distribute_values_from_function(lambda c: ids[c.replica_id_in_sync_group])
        shape = tf.constant([200, 2])
        apply = lambda i: optimizer.apply([tf.IndexedSlices(tf.ones((60, 2)), i, shape)], [table])
        mirrored.run(apply, args=(own,))
        return table.numpy()[[0, 25], 0].tolist()

    found["rows"] = [rows_of((20, 30)), rows_of((30, 60))]
    print(json.dumps(found))
    """
)


def run(what):
    (found,) = two_devices.found(SCRIPT, what)
    return found


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_scaled_loss_keeps_the_copies_alike():
    assert run("float16") == {"apart": 0, "steps": 6}


@pytest.mark.extended
@pytest.mark.tensorflow
def test_mirrored_training_equals_one_device():
    found = run("float32")
    assert found["worst"] <= 1e-5
    assert found["apart"] == 0
    assert not found["whole"], "a step copies tables"
    # How often the batches hold ids 0 and 25.
    assert found["rows"] == [[-5, -2], [-3, -3]]
