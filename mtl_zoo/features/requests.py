"""What a feature asks of a model: its inputs, and how they become a vector."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# Ids have one layout everywhere: 0 is padding or missing, 1 is out of vocabulary, values start at 2.
MISSING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2
# Ids are int32.
MOST_IDS = 2**31 - 1 - FIRST_ID


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One tensor that a model takes: shape of a row, and type."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What a feature of ids asks of the embedding: rows of a table, which is fused with all others of its width.

    Args:
        table: Names the table; features that name the same one share it.
        num_ids: Its rows, ids 0 and 1 included.
        dim: Its width.
        trainable: False freezes it.
        pretrained: (num_ids - 2, dim) that the known values start from, or None.
        pooling: How the rows of a list become one vector: `"sum"`, `"mean"` or `"max"`. None leaves (length, dim).
        weights: Whether the feature's second input, (length,), holds the weight of each id of its list: rows are
            multiplied by them, and `"mean"` divides by their sum.
    """

    table: str
    num_ids: int
    dim: int
    trainable: bool = True
    pretrained: np.ndarray | None = None
    pooling: str | None = "sum"
    weights: bool = False


@dataclasses.dataclass(frozen=True)
class Number:
    """What a feature asks of the embedding whose inputs, one number each, are its vector: a place beside the others."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """What a feature asks of the embedding that a Keras layer turns into a vector.

    Args:
        layer: From the feature's input (or a dict of its inputs, if it has several) to (batch, width).
        key: Features with the same key share one copy of the layer.
    """

    layer: Any
    key: str


Request = Rows | Number | Encoder
