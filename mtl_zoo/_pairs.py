"""How a row's two vectors travel as one tensor, from the graph of a model to the loss of a retrieval task.

    (batch, 2 width + 3): the user's vector, the item's, the item's probability, and its id in two parts

A loss of all rows needs the vectors and not their product; an id in one part would be whole in float32 up to 2^24 only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

FACTS = 3
_ID_PART = 1 << 16


class Items(NamedTuple):
    """The items of rows: (batch, width), (batch,) and (batch, 2)."""

    vectors: Any
    probabilities: Any
    id_parts: Any


def pack(users: Any, items: Any, probabilities: Any, ids: Any) -> Any:
    """One tensor of vectors (batch, width) of users and items, probabilities (batch,) and int32 ids (batch,)."""
    from keras import ops

    facts = [probabilities, ops.cast(ids // _ID_PART, "float32"), ops.cast(ids % _ID_PART, "float32")]
    return ops.concatenate([users, items, ops.stack(facts, axis=1)], axis=1)


def packed_width(width: int) -> int:
    """Of what `pack` gives."""
    return 2 * width + FACTS


def users_of(packed: Any) -> Any:
    """The users' vectors, (batch, width)."""
    return packed[:, : (packed.shape[-1] - FACTS) // 2]


def items_of(packed: Any) -> Items:
    """The items' part."""
    items = packed[:, (packed.shape[-1] - FACTS) // 2 :]
    return Items(items[:, :-FACTS], items[:, -FACTS], items[:, -FACTS + 1 :])
