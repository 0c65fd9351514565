"""Two replicas train to the weights of one. In a process of its own, for its two logical devices."""

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

    one, two = train(split, tf.distribute.get_strategy()), train(split, mirrored)
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(one.weights, two.weights)]
    worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    found = {"worst": worst, "apart": apart(two), "whole": whole_tables(two)}

    keras.config.set_dtype_policy("mixed_float16")
    model = train(lambda: LazyAdam(0.01), mirrored)
    found["float16"] = {"apart": apart(model), "steps": int(model.optimizer.iterations.numpy())}

    class Watched(LazySGD):
        rows = []

        def condense(self, gradients):
            self.rows.append(int(tf.size(gradients[0].indices)))
            return super().condense(gradients)

    with mirrored.scope():
        table, optimizer = keras.Variable(np.ones((5, 2), "float32")), Watched(0.5)
        optimizer.build([table])
    thrice = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([1, 1, 1]), tf.constant([5, 2]))
    mirrored.run(lambda: optimizer.apply([thrice], [table]))
    found["rows"], found["table"] = sorted(Watched.rows), table.numpy().tolist()
    print(json.dumps(found))
    """
)


@pytest.mark.tensorflow
def test_mirrored_training_equals_one_device():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["worst"] <= 1e-5
    assert found["apart"] == 0
    assert not found["whole"], "a step copies tables"
    assert found["float16"] == {"apart": 0, "steps": 6}
    # Each replica sums its three rows to one before they travel; then the two that came are summed.
    assert found["rows"] == [2, 2, 3, 3]
    assert found["table"] == [[1, 1], [-2, -2], [1, 1], [1, 1], [1, 1]]
