"""What a feature asks of a model: its inputs, and how they become a vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
    """One tensor that a model takes: shape of a row, and type.

    `meaning` is what its numbers stand for, where that is not what the column held: features of one column whose raw
    forms mean different things cannot be exported together. `says_missing` marks the input that is 1 where the
    feature's value is missing.
    """

    shape: tuple[int | None, ...]
    dtype: str
    meaning: str = ""
    says_missing: bool = False

    @property
    def missing(self) -> Any:
        """What it holds of a row whose value is missing."""
        return "" if self.dtype == "string" else int(self.says_missing)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What a feature of ids asks of the embedding: rows of a table, which is fused with all others of its width.

    Args:
        table: Names the table; features that name the same one share it.
        num_ids: Its rows, ids 0 and 1 included.
        dim: Its width.
        trainable: False freezes it.
        pretrained: (num_ids - 2, dim) that the known values start from, or None.
        pooling: How the rows of a list become one vector: `"sum"`, `"mean"` or `"max"`. None leaves (length, dim),
            or gives them to `encoder`.
        encoder: With pooling=None, what turns the rows of a list into one vector. Its layer is called with the rows
            (batch, length, dim), zeros where padded, and with `mask`, bool (batch, length), if its `call` takes one.
        weights: Whether the feature's second input, (length,), holds the weight of each id of its list: rows are
            multiplied by them, and `"mean"` divides by the sum of their absolute values.
        unknown_rate: In training, each id of a known value is read as unknown with this probability.
    """

    table: str
    num_ids: int
    dim: int
    trainable: bool = True
    pretrained: np.ndarray | None = None
    pooling: str | None = "sum"
    encoder: Encoder | None = None
    weights: bool = False
    unknown_rate: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """What a feature asks of the embedding whose inputs are one number each: a place beside the others.

    Args:
        group: Numbers of one group are encoded by one layer, which it names. Default: "", the number is its own vector.
        make: From the requests of a group, in their order, and the layer's `name` and `dtype`, to that layer: from
            (batch, numbers) to (batch, numbers, width). Of a feature with several inputs it takes the first one; the
            others stand beside its vector.
        width: Of the vector.
        boundaries: Of this number, for a layer that needs them.
    """

    group: str = ""
    make: Callable[..., Any] | None = None
    width: int = 1
    boundaries: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """What a feature asks of the embedding that a Keras layer turns into a vector.

    Args:
        layer: From the feature's input (or a dict of its inputs, if it has several) to (batch, width).
        key: Features with the same key share one copy of the layer.
        query: Another feature, whose vector (batch, its width) the layer is called with as `query`; its `build` then
            takes both shapes. That feature must not have a query of its own.
    """

    layer: Any
    key: str
    query: str | None = None


Request = Rows | Number | Encoder
