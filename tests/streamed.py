"""A table and its transforms, for the tests of streams."""

import threading

import numpy as np
import pandas as pd

from mtl_zoo import (
    BinaryTask,
    Categorical,
    FeatureTransform,
    MulticlassTask,
    Numeric,
    RegressionTask,
    Sequence,
)

ROWS = 1000
FEATURES = (
    Categorical("city"),
    Categorical("item"),
    Categorical("tags", multi_hot=True),
    Sequence("history", length=3, dim=16),
    Numeric("price", missing="mean"),
    Numeric("age", normalization="quantile", buckets=3),
)
TASKS = (
    BinaryTask("click"),
    BinaryTask("buy", sample_space="seen", label="bought"),
    MulticlassTask("mood", classes=("bad", "good")),
    RegressionTask("time", sample_weight="w_time"),
)


def make_table(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    click = pd.array(rng.integers(0, 2, rows), dtype="Int64")
    click[rng.random(rows) < 0.2] = pd.NA
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "city": rng.choice(["Rome", "Oslo", "", None], rows),
            "item": np.arange(rows) + 2**40,
            "tags": rng.choice(["a|b", "c", "a"], rows),
            "history": [list(range(n)) for n in rng.integers(0, 5, rows)],
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "age": rng.integers(10, 80, rows),
            "click": click,
            "seen": rng.integers(0, 2, rows),
            "bought": rng.integers(0, 2, rows),
            "mood": rng.choice(["bad", "good", None], rows),
            "time": rng.normal(size=rows),
            "w_time": rng.random(rows),
            "w": rng.random(rows),
        }
    )


TABLE = make_table()
TRANSFORM = FeatureTransform(FEATURES, TASKS, sample_weight="w").fit(TABLE)
SIMPLE = FeatureTransform((Categorical("item"), Numeric("price", missing="mean")), BinaryTask("click")).fit(TABLE)


def flat(element):
    import tensorflow as tf

    return [array.numpy() for array in tf.nest.flatten(element)]


def items(data):
    """The ids of `item` by batch: each row has its own."""
    batches = [element[0] if isinstance(element, tuple) else element for element in data]
    return [batch["item"].numpy().tolist() for batch in batches]


def flattened(batches):
    return [item for batch in batches for item in batch]


def stream_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mtl_zoo_stream")]
