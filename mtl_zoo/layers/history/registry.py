"""The encoders of histories by name, in their usual sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from mtl_zoo._registry import Registry
from mtl_zoo.layers.history.self_attention import HistorySelfAttention
from mtl_zoo.layers.history.target_attention import TargetAttention
from mtl_zoo.layers.text import TextAttention

# By name: (width of the vectors, longest history, name of the layer) -> the layer.
HISTORY_ENCODERS: Registry[Callable[[int, int, str], Any]] = Registry("encoder")
HISTORY_ENCODERS.add("din", lambda dim, length, name: TargetAttention(name=name), TargetAttention)
HISTORY_ENCODERS.add(
    "sasrec", lambda dim, length, name: HistorySelfAttention(max_positions=length, name=name), HistorySelfAttention
)
HISTORY_ENCODERS.add("gru", lambda dim, length, name: keras.layers.GRU(dim, name=name), keras.layers.GRU)
HISTORY_ENCODERS.add("attention", lambda dim, length, name: TextAttention(dim, name=name), TextAttention)


def make_history_encoder(encoder: str, dim: int, length: int, name: str = "history_encoder") -> Any:
    """The encoder of this name for vectors of width `dim`.

    Args:
        encoder: `"din"` (`TargetAttention`), `"sasrec"` (`HistorySelfAttention`, 2 blocks of 1 head), `"gru"` (the last
            state of Keras' GRU of `dim` units) or `"attention"` (a mean with learned weights).
        dim: Width of the vectors.
        length: The longest history.
        name: The layer's name.

    Raises:
        ValueError: There is no encoder of this name.

    Example:

    >>> from mtl_zoo.layers.history import make_history_encoder
    >>> make_history_encoder("sasrec", dim=8, length=20).max_positions
    20
    """
    return HISTORY_ENCODERS[encoder](dim, length, name)
