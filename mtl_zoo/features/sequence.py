from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import FLOAT, Column
from mtl_zoo.features._id_feature import IdFeature
from mtl_zoo.features.base import Choice, Feature, InferRules, register_feature
from mtl_zoo.features.requests import Encoder, Rows

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
        weights: Values have weights, as in `Categorical`: embeddings are multiplied by them before they are pooled, and
            `"mean"` divides by the sum of the weights' absolute values.
        nested: A cell holds a list of lists (sessions of baskets), read as one list in their order, of which the last
            `length` values are kept; see `Categorical`.
        encoder: What makes one vector of the list in place of `pooling`: `"din"` (attention of the candidate, needs
            `query`), `"sasrec"` (causal self-attention), `"gru"` or `"attention"`, see `mtl_zoo.layers.history`; or a
            Keras layer of yours, called as `layer(vectors, mask=real)`, and `query=` if there is one, with (batch,
            length, dim) and booleans (batch, length), to (batch, any width). Default: None, `pooling`.
        query: Name of another feature, the candidate, whose vector the encoder reads the list for; the same `key` gives
            both one table.

    The other arguments are those of `Categorical`; `key="item_id"` shares the table of the feature `item_id`.

    Example:

    >>> from mtl_zoo import Categorical, Sequence
    >>> features = [Categorical("item_id", size=100), Sequence("history", size=100, key="item_id", length=20)]
    >>> features[1].table
    'item_id'
    >>> Sequence("history", size=100, key="item_id", encoder="din", query="item_id").query
    'item_id'
    """

    length: int = dataclasses.field(default=50, kw_only=True)  # type: ignore[misc]
    pooling: str | None = dataclasses.field(default="mean", kw_only=True)
    separator: str = dataclasses.field(default="|", kw_only=True)  # type: ignore[misc]
    weights: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]
    nested: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]
    encoder: Any = dataclasses.field(default=None, kw_only=True, compare=False)
    query: str | None = dataclasses.field(default=None, kw_only=True)

    is_ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_int("length", self.length)
        check.check_choice("pooling", self.pooling, ("mean", "sum", "max", None))
        if isinstance(self.encoder, str):
            check.check_choice("encoder", self.encoder, encoder_names())
        elif self.encoder is not None and not callable(self.encoder):
            raise TypeError(
                f"`encoder` must be one of {', '.join(map(repr, encoder_names()))}, or a Keras layer. "
                f"Received: encoder={self.encoder!r}"
            )
        if self.query is not None and (self.encoder is None or not isinstance(self.query, str)):
            raise ValueError(f"`query` must name a feature, for an encoder. Received: query={self.query!r}")
        if self.encoder == "din" and self.query is None:
            raise ValueError("`query` must name the candidate's feature for encoder='din'. Received: query=None")

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length,)

    def embed(self) -> Rows:
        rows = super().embed()
        if self.encoder is None:
            return rows
        layer = self.encoder
        if isinstance(layer, str):
            from mtl_zoo.layers.history import make_history_encoder

            layer = make_history_encoder(layer, self.dim, self.length, name=f"{self.name}_encoder")
        return dataclasses.replace(rows, pooling=None, encoder=Encoder(layer, f"list of {self.name}", self.query))

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
            (
                cls("rated", dim=4, length=3, weights=True),
                [[[5, 2], [7, -1]], [], [[9, 4]], [[7, 1]], [[5, 0]], [[9, 9]]],
            ),
            (
                cls("baskets", dim=4, length=3, nested=True),
                [[[5, 7], [7, 9]], [[]], [[9]], [[7], [], [5]], None, [[9, 9]]],
            ),
            (cls("seen", dim=4, length=3, encoder="sasrec"), [[5, 7, 7, 9], [], [9], [7, 5], [5], [9, 9]]),
        ]

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        if not column.is_list or column.kind == FLOAT:  # measured numbers are a Vector's
            return None
        lists = column.lists("|")
        distinct = int((lists.cells.counts > 0).sum())
        lengths = np.bincount(lists.rows, minlength=lists.num_rows)
        longest = int(lengths.max())
        length = min(longest, LONGEST_LIST)
        kept = f", the last {length} kept" if length < longest else ""
        source = None if name == column.name else column.name
        feature = cls(name, column=source, dim=rules.dim, length=length)
        return Choice(feature, f"{column.shown}, up to {longest} values{kept}", distinct, int((lengths == 0).sum()))

    def get_config(self) -> dict[str, Any]:
        import keras

        config = super().get_config()
        if self.encoder is None:
            del config["encoder"], config["query"]  # what 0.1.0 wrote
        elif not isinstance(self.encoder, str):
            config["encoder"] = keras.saving.serialize_keras_object(self.encoder)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        import keras

        if isinstance(config.get("encoder"), dict):
            config = {**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])}
        return cls(**config)


def encoder_names() -> tuple[str, ...]:
    """What `encoder` may be by name; Keras is imported for it."""
    from mtl_zoo.layers.history import HISTORY_ENCODERS

    return tuple(HISTORY_ENCODERS)
