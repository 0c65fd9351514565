"""Batch normalisation as all layers of the zoo use it."""

from __future__ import annotations

import keras

from mtl_zoo import _backend

# With Keras' 0.99 the running moments lag a hundred steps behind: early epochs of a small table, by which training is
# stopped, would be judged with moments of the untrained network.
_MOMENTUM = 0.9


def batch_norm(name: str, epsilon: float, dtype: object) -> keras.layers.BatchNormalization:
    """Synchronised: under tf.distribute the moments are those of the global batch."""
    return keras.layers.BatchNormalization(
        name=name, momentum=_MOMENTUM, epsilon=epsilon, synchronized=_backend.is_tensorflow(), dtype=dtype
    )
