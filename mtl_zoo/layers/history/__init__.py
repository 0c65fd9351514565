"""Layers that read the vectors of a history, (batch, length, dim), oldest first, and give one vector.

Each takes `mask`, (batch, length) booleans: which are no padding. Padding stands behind the newest and changes nothing.
Some take `query`, (batch, dim): the vector of the candidate that the history is read for.
"""

from mtl_zoo.layers.history.registry import HISTORY_ENCODERS, make_history_encoder
from mtl_zoo.layers.history.self_attention import HistorySelfAttention
from mtl_zoo.layers.history.target_attention import TargetAttention

__all__ = ["HISTORY_ENCODERS", "HistorySelfAttention", "TargetAttention", "make_history_encoder"]
