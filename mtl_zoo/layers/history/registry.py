"""The encoders of histories by name, in their usual sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from mtl_zoo import _validation as check
from mtl_zoo.layers.history.self_attention import HistorySelfAttention
from mtl_zoo.layers.history.target_attention import TargetAttention
from mtl_zoo.layers.text import TextAttention

# (width of the vectors, longest history, name of the layer) -> the layer.
HISTORY_ENCODERS: dict[str, Callable[[int, int, str], Any]] = {
    "din": lambda dim, length, name: TargetAttention(name=name),
    "sasrec": lambda dim, length, name: HistorySelfAttention(max_positions=length, name=name),
    "gru": lambda dim, length, name: keras.layers.GRU(dim, name=name),
    "attention": lambda dim, length, name: TextAttention(dim, name=name),
}


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
    check.check_choice("encoder", encoder, tuple(HISTORY_ENCODERS))
    return HISTORY_ENCODERS[encoder](dim, length, name)
