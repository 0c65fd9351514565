"""Texts, vectors, pictures, dates, neighbours and histories on two mirrored devices: the weights of one device.

In a process of its own, for its two logical devices.
"""

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
    from contract.test_content import EDGES, content
    from mtl_zoo import (
        BinaryTask, Categorical, Datetime, Embedding, FeatureFusion, FeatureTransform, Image, Neighbours, Sequence,
        SharedBottom, Text, Vector,
    )

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    table = content(rows=25)
    features = [
        Categorical("item", size=3, dim=4),
        Sequence("read", column="history", size=3, dim=4, length=2, key="item", encoder="din", query="item"),
        Text("title", "cnn", dim=3, max_length=4, vocabulary_size=30),
        Text("words", "mean", column="title", dim=4, max_length=4, vocabulary_size=30),
        Neighbours("alike", of="item", edges=EDGES, length=2, pooling="weighted"),
        Vector("trailer", encoder=4),
        Image("poster", (6, 4), encoder=3),
        Datetime("when", encoding="embedded", dim=2),
    ]
    transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("like")]).fit(table)
    embedding = Embedding(fusions=[FeatureFusion("content", ("title", "trailer", "poster"), units=4)])
    found = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = SharedBottom(transform, bottom_units=(4,), tower_units=(), embedding=embedding)
            if found:
                model.set_weights(found[0][0])
            else:
                start = model.get_weights()
            model.compile("auto", metrics=None)
        found.append([start])
        model.fit(table, batch_size=8, epochs=2, shuffle=False, verbose=0)  # the last batch has one row
        found[-1] = [start, {w.path: np.array(w) for w in model.weights}]
    (_, one), (_, two) = found
    print(json.dumps({path: float(np.abs(one[path] - other).max()) for path, other in zip(one, two.values())}))
    print(json.dumps(float(max(np.abs(one[path] - w).max() for path, w in zip(one, start)))))
    """
)


@pytest.mark.tensorflow
def test_two_mirrored_devices_train_as_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    apart, moved = map(json.loads, done.stdout.strip().splitlines()[-2:])
    assert moved > 1e-3
    assert max(apart.values()) < 1e-5, {path: gap for path, gap in apart.items() if gap >= 1e-5}
