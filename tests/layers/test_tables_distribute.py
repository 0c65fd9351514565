"""Tables in shards, drawn in chunks and penalised: two replicas train to the weights of one.

In a process that has two logical devices.
"""

import textwrap

import pytest
import two_devices

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, "tests")
    import keras, numpy as np, tensorflow as tf
    from toys import CLICK, inputs, labels
    from mtl_zoo import Categorical, Sequence, create_model
    from mtl_zoo._backend import is_table
    from mtl_zoo.layers import _tables
    from mtl_zoo.optimizers import LazyAdam
    from mtl_zoo.options import Embedding

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    single, mirrored = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    usual, _tables.CHUNK_BYTES = _tables.CHUNK_BYTES, 160

    # Ids 0 and 1 of `domain`, its table's first shard, are in no batch; a width of its own is a table of lists only.
    features = [
        Categorical("user_id", size=30, dim=4),
        Categorical("domain", size=3, dim=2),
        Sequence("history", size=6, dim=3, length=5),
    ]
    # 41 rows in batches of 16: the last one falls on the replicas as 5 and 4.
    x, y = {f.name: inputs(41)[f.name] for f in features}, {"click": labels(41)["click"]}
    x["history"][8:16] = 0  # all lists of one replica
    x["history"][16:32] = 0  # all lists of a batch

    def train(strategy, shards):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            options = {"bottom_units": (4,), "tower_units": (3,), "embedding": Embedding(shards=shards, l2=0.2)}
            model = create_model("shared_bottom", features, [CLICK], **options)
            model.compile(LazyAdam(0.05), metrics=None)
        tables = model.get_layer("embedding").tables
        parts = [[p.numpy() for p in strategy.experimental_local_results(t.value)] for t in tables]
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        rows = [t.numpy() for t in tables]
        if shards == 2:
            rows = [np.concatenate([a[:-1], b[:-1]]) for a, b in zip(rows[::2], rows[1::2])]
        return rows + [w.numpy() for w in model.weights if not is_table(w)], parts

    def apart(a, b):
        return max(float(np.abs(x - y).max() / np.abs(x).max()) for x, y in zip(a, b, strict=True))

    one, _ = train(single, 1)
    two, parts = train(mirrored, int(sys.argv[1]))
    _tables.CHUNK_BYTES = usual
    started = max(float(np.abs(p - every[0]).max()) for every in parts for p in every)
    print(json.dumps({"apart": apart(one, two), "started": started}))
    """
)


@pytest.mark.extended
@pytest.mark.tensorflow
@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_mirrored_training_equals_one_device(shards):
    (found,) = two_devices.found(SCRIPT, str(shards))
    assert found["apart"] <= 1e-5
    assert found["started"] == 0, "the parts of a mirrored table start different"
