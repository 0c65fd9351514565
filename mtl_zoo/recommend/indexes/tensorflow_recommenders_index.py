"""The indexes of tensorflow-recommenders beside Keras 3.

tensorflow-recommenders is written for Keras 2, which is the package `tf_keras` today. TensorFlow decides at the first
touch of `tf.keras` whether that name is Keras 2 or 3, by the environment variable TF_USE_LEGACY_KERAS, and the library
refuses to be imported if it is Keras 3. `import keras`, which mtl_zoo uses, is Keras 3 either way, and both work in one
process. What changes is what a program's own `tf.keras` is: layers made of it are Keras 2, and no layers for a model of
the zoo. This file is the one place that sets the variable, and only when such an index is made.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.recommend.indexes._arrays import joined, rows_at_once
from mtl_zoo.recommend.indexes._base import Index, register_index

_VARIABLE = "TF_USE_LEGACY_KERAS"


@register_index("tensorflow_recommenders")
class TensorFlowRecommendersIndex(Index):
    """The exact search of tensorflow-recommenders: all scores at once, or batch by batch of the items.

    Making one sets the environment variable TF_USE_LEGACY_KERAS=1 if it is not set: `tf.keras` is Keras 2 in this
    process from then on, while `keras` stays Keras 3. If `tf.keras` was touched before, set the variable before the
    program starts.

    Args:
        layer: `"brute_force"`, all scores of a query at once, or `"streaming"`, those of a batch of items at a time, in
            less memory.
        batch_size: Items in a batch of `"streaming"`.

    Raises:
        ImportError: `tf.keras` is Keras 3 in this process already.
        ValueError: An unknown layer; `batch_size` below 1.

    Example, in a program that did not touch `tf.keras` yet:

        index = TensorFlowRecommendersIndex().build(ids, vectors)
        ids, scores = index.query(users, k=10)
    """

    def __init__(self, layer: str = "brute_force", batch_size: int = 8192) -> None:
        super().__init__()
        self.layer = check.check_choice("layer", layer, ("brute_force", "streaming"))
        self.batch_size = check.check_int("batch_size", batch_size)
        self._factorized = _import_factorized_top_k()

    def _rebuild(self) -> None:
        import tensorflow as tf

        positions = np.arange(len(self), dtype="int64")
        if self.layer == "brute_force":
            self._top_k = self._factorized.BruteForce()
            if len(self):
                self._top_k.index(tf.constant(self._vectors), tf.constant(positions))
        else:
            rows = tf.data.Dataset.from_tensor_slices((positions, self._vectors)).batch(self.batch_size)
            self._top_k = self._factorized.Streaming().index_from_dataset(rows)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import tensorflow as tf

        size = rows_at_once(len(self) if self.layer == "brute_force" else self.batch_size)
        parts = []
        for i in range(0, len(queries), size):
            scores, positions = self._top_k(tf.constant(queries[i : i + size]), k=k)
            parts.append((positions.numpy(), scores.numpy()))
        return joined(parts)


def _import_factorized_top_k() -> Any:
    os.environ.setdefault(_VARIABLE, "1")
    try:
        from tensorflow_recommenders.layers import factorized_top_k
    except ImportError as error:
        raise ImportError(
            "`TensorFlowRecommendersIndex` needs tensorflow-recommenders, and `tf.keras` to be Keras 2 for it. Set the "
            f"environment variable {_VARIABLE}=1 before the program starts. Received: {_VARIABLE}="
            f"{os.environ[_VARIABLE]}, and: {error}"
        ) from error
    return factorized_top_k
