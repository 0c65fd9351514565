from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import FLOAT, Column
from mtl_zoo.features._id_feature import IdFeature
from mtl_zoo.features.base import Choice, Feature, InferRules, register_feature

LONGEST_LIST = 50


@register_feature("sequence")
@dataclasses.dataclass(frozen=True)
class Sequence(IdFeature):
    """A feature that is a list of categorical values, in order: the items a user clicked, a film's genres.

    A cell holds a list, or a string split at `separator`. Lists longer than `length` keep their last values; shorter
    ones are padded with id 0, which takes no part in the pooling. An empty list pools to zeros.

    Args:
        name: Names the feature and the model's input, an int32 tensor of shape (batch, length).
        length: The most values kept.
        pooling: `"mean"`, `"sum"` or `"max"` over the list. None gives the vectors as they stand, (batch, length, dim),
            with zeros for padding, to a model that reads sequences.
        separator: What splits a string into values.

    The other arguments are those of `Categorical`; `key="item_id"` shares the table of the feature `item_id`.

    Example:

    >>> from mtl_zoo import Categorical, Sequence
    >>> features = [Categorical("item_id", size=100), Sequence("history", size=100, key="item_id", length=20)]
    >>> features[1].table
    'item_id'
    """

    length: int = dataclasses.field(default=50, kw_only=True)  # type: ignore[misc]
    pooling: str | None = dataclasses.field(default="mean", kw_only=True)
    separator: str = dataclasses.field(default="|", kw_only=True)  # type: ignore[misc]

    is_ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_int("length", self.length)
        check.check_choice("pooling", self.pooling, ("mean", "sum", "max", None))

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length,)

    @property
    def holds_lists(self) -> bool:
        return True

    def _skipped(self, counts: np.ndarray, length: int) -> np.ndarray:
        return np.maximum(counts - length, 0)

    def _cut_in_graph(self, lists: Any) -> Any:
        return lists[:, -self.length :]

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        return [
            (cls("history", dim=4, length=3), [[5, 7, 7, 9], [], [9], [7, 5], [5], [9, 9]]),
            (cls("words", dim=4, length=2, pooling="max"), ["a|b|a", "", None, "c||b", "a", "b"]),
        ]

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        if not column.is_list:
            return None
        if column.kind == FLOAT:
            raise ValueError(
                f"`{column.name}` holds lists of numbers, which may be measured ones. Received: {column.shown}. Name "
                "it in `features`, as Vector(...) if all have one length or as Encoded(...) with an encoder of your "
                "own, or in `exclude`."
            )
        lists = column.lists("|")
        distinct = int((lists.cells.counts > 0).sum())
        lengths = np.bincount(lists.rows, minlength=lists.num_rows)
        longest = int(lengths.max())
        length = min(longest, LONGEST_LIST)
        kept = f", the last {length} kept" if length < longest else ""
        source = None if name == column.name else column.name
        feature = cls(name, column=source, dim=rules.dim, length=length)
        return Choice(feature, f"{column.shown}, up to {longest} values{kept}", distinct, int((lengths == 0).sum()))
