from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features import _separation
from mtl_zoo.features._columns import BOOLEAN, DATE, FLOAT, SHOWN, STRING, Cells, Column, Lists
from mtl_zoo.features._id_feature import IdFeature
from mtl_zoo.features.base import Choice, Feature, InferRules, register_feature
from mtl_zoo.features.vocabularies import Vocabulary

logger = logging.getLogger(__name__)

# `id`, `user_id`, `userId`, `UserID`, `user-id`, and names that stand for ids by themselves.
_NAMES_OF_IDS = "uid|uuid|guid|user|item|movie|product|sku|asin|isbn|ean"
_ID_NAME = re.compile(rf"(?:.*[_\-. ])?(?:[iI][dD]s?|(?i:{_NAMES_OF_IDS}))|.*[a-z0-9](?:Id|ID)s?")
# Shares of distinct values from which a column of strings is something else, and below which one says nothing.
_MOSTLY, _OFTEN, _FEW = 0.9, 0.2, 10
# Words a cell, and the share of different cells, above which strings are texts.
_WORDS, _OFTEN_DIFFERENT = 4, 0.5
_DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(?: .*)?"


@register_feature("categorical")
@dataclasses.dataclass(frozen=True)
class Categorical(IdFeature):
    """A feature with one of many values, embedded: user, item, city, genre.

    Values become ids: 0 missing, 1 unknown, 2.. known. Which values are known is given by one of `vocabulary`, `size`,
    `hash_buckets`, or else learned from the training table by `FeatureTransform.fit`.

    Args:
        name: Names the feature and the model's input, an int32 tensor of shape (batch,), or (batch, length) if
            `multi_hot`.
        column: Its column in a table. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        dim: Width of its embedding.
        vocabulary: The known values, in the order of their ids.
        size: The known values are the whole numbers 0 .. size - 1.
        hash_buckets: Values are hashed to this many ids; two values may share one.
        min_count: A learned vocabulary keeps values seen at least this often in the training table.
        max_ids: A learned vocabulary keeps at most this many values, the most frequent (equally frequent ones in their
            own order); the others are unknown. Default: all.
        key: Features with the same key share one vocabulary and one embedding table.
        pretrained: A (values, dim) matrix that the embedding of the known values starts from.
        trainable: False freezes the embedding.
        multi_hot: A cell holds several values (a list, or a string split at `separator`); their embeddings are summed,
            each value once.
        length: With `multi_hot`, the most values a cell may hold. Default: the most seen in `fit`.
        separator: With `multi_hot`, what splits a string into values.
        weights: With `multi_hot`, values have weights: a cell holds a list of (value, weight) pairs, a map from values
            to weights, or a string such as `"comedy:0.7|drama:-2"`. A second input, `<name>.weights`, float32 of shape
            (batch, length), multiplies the embeddings before they are summed. A value without a weight has 1 (in a
            map, it is not there); a repeated value counts as often as it stands. Values are read as strings. An
            exported model takes the string.
        nested: With `multi_hot`, a cell holds a list of lists (baskets of a session), read as one list: which values
            stood together is not kept. Values are read as strings. An exported model takes a string, as if the column
            had held all values with `separator` between them.
        num_ids: Rows of the table, ids 0 and 1 included. Follows from the above, or set by `fit`.
        bias: What only training knows, such as the position in a list: no model reads it but the towers of tasks with
            `bias=` (see `BinaryTask`), and tables and requests to be scored need no such column.
        unknown_rate: In training, a known value is read as unknown with this probability, at each step anew, so that
            the row of unknown values learns what is true of all of them: without it that row is never trained where
            the vocabulary is learned from the training table. For ids that new ones will join; 0.05 to 0.2.

    Example:

    >>> from mtl_zoo import Categorical
    >>> Categorical("user_id", size=1000, dim=8).num_ids
    1002
    """

    multi_hot: bool = dataclasses.field(default=False, kw_only=True)
    length: int | None = dataclasses.field(default=None, kw_only=True)  # type: ignore[misc]
    separator: str = dataclasses.field(default="|", kw_only=True)  # type: ignore[misc]
    weights: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]
    nested: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]
    bias: bool = dataclasses.field(default=False, kw_only=True)  # type: ignore[misc]

    names_domain: ClassVar[bool] = True
    is_id: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None:
            if not self.multi_hot:
                raise ValueError(f"`length` needs multi_hot=True. Received: length={self.length!r}")
            check.check_int("length", self.length)
        if not isinstance(self.bias, bool):
            raise ValueError(f"`bias` must be True or False. Received: bias={self.bias!r}")
        if self.weights and not self.multi_hot:
            raise ValueError(f"`weights` needs multi_hot=True. Received: weights={self.weights!r}")

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length,) if self.multi_hot else ()

    @property
    def generated_as(self) -> str | None:  # type: ignore[override]
        return None if self.multi_hot else "category"

    @property
    def holds_lists(self) -> bool:
        return self.multi_hot

    @property
    def reads_distinct(self) -> bool:  # type: ignore[override]
        return not self.multi_hot

    def unknown_sizes(self) -> tuple[str, ...]:
        return super().unknown_sizes() + (("length",) if self.multi_hot and self.length is None else ())

    def sizes(self) -> dict[str, Any]:
        return {"length": self.length} if self.multi_hot else {}

    def sized(self, state: Vocabulary, reading: Cells | Lists) -> Feature:
        sized = super().sized(state, reading)
        if not isinstance(reading, Lists):
            return sized
        return dataclasses.replace(sized, length=self._length_of(state, reading))  # type: ignore[call-arg]

    def _length_of(self, state: Vocabulary, reading: Lists) -> int:
        """The most values a cell holds, each once, unless `length` says how many are kept."""
        cells = reading.cells
        rows = reading.rows
        if not self.weights:
            rows, _ = self._kept(rows, state.ids(cells)[cells.codes])
        counts = np.bincount(rows)
        most = int(counts.max())
        if self.length is not None and most > self.length:
            logger.warning(
                "`%s`: %d of %d rows hold more than length=%d values (up to %d); the rest of each is dropped",
                cells.column, int((counts > self.length).sum()), reading.num_rows, self.length, most,
            )  # fmt: skip
        return self.length or most

    def _kept(self, rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each value of a list once."""
        first = ~pd.Series(rows * (int(ids.max(initial=0)) + 1) + ids).duplicated().to_numpy()
        return rows[first], ids[first]

    def _kept_in_graph(self, rows: Any, ids: Any, num_ids: int) -> tuple[Any, Any]:
        import tensorflow as tf

        keys, _ = tf.unique(rows * num_ids + tf.cast(ids, tf.int64))
        return keys // num_ids, tf.cast(keys % num_ids, tf.int32)

    def leak_auc(self, column: Column, rows: np.ndarray, label: np.ndarray) -> float | None:
        return None if self.multi_hot or column.is_list else _separation.value_auc(column, rows, label)

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        if column.is_list or column.kind == DATE:
            return None
        cells = column.cells()
        distinct = int((cells.counts > 0).sum())
        rule = _why_categorical(column, cells, distinct, rules.threshold)
        if rule is None:
            return None
        source = None if name == column.name else column.name
        feature = cls(name, column=source, dim=rules.dim)
        return Choice(feature, rule, distinct, cells.missing, _what_is_lost(column, cells))

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        texts = ["Rome", "Oslo", None, "Rome", "", "Größe"]
        return [
            (cls("city", dim=4), texts),
            (cls("city", dim=4, vocabulary=("Oslo", "Rome")), texts),
            (cls("agent", dim=3, hash_buckets=7), texts),
            (cls("item", dim=4, min_count=2), [7, 2**53 + 1, 7, -3, 12, 7]),
            (cls("slot", dim=4, size=9), [0.0, 8.0, None, 3.0, 3.0, 1.0]),
            (cls("is_new", dim=2), [True, False, True, True, False, True]),
            (cls("tags", dim=4, multi_hot=True), ["a|b|a", "", None, "c||b", "a", "b"]),
            (cls("moods", dim=4, multi_hot=True, weights=True), ["a:.5|b:-2|a", "", None, "c:1e1||b", "a:", "x:y:2"]),
            (
                cls("baskets", dim=4, multi_hot=True, nested=True),
                [[["a", "b"], ["a"]], [], None, [["c"], []], [["b"]], [["a"]]],
            ),
            (
                cls("likes", dim=4, multi_hot=True, weights=True),
                [{"a": 0.5, "b": 2.0}, {}, None, {"c": 1}, {"a": 3}] * 2,
            ),
        ]

    @classmethod
    def asked_for(cls, column: Column, name: str, source: str | None, rules: InferRules) -> Feature:
        """What `infer(categorical=[...])` makes of a column."""
        return cls(name, column=source, dim=rules.dim, multi_hot=column.is_list)


def is_named_like_an_id(name: str) -> bool:
    return _ID_NAME.fullmatch(name) is not None


def _why_categorical(column: Column, cells: Cells, distinct: int, threshold: int) -> str | None:
    """The rule that makes the column a categorical, or None."""
    if column.kind in (STRING, BOOLEAN):
        return f"{SHOWN[column.kind]}, {distinct} distinct"
    values = cells.values[cells.counts > 0].astype(np.float64)
    if column.kind == FLOAT and not ((np.floor(values) == values) & (np.abs(values) < 2.0**63)).all():
        return None
    if is_named_like_an_id(column.name):
        return f"whole numbers, named like an id, {distinct} distinct"
    if distinct <= threshold:
        return f"whole numbers, {distinct} distinct"
    return None


def _what_is_lost(column: Column, cells: Cells) -> str:
    """What the values of a column of strings look like, if it is more than names: the words of a warning."""
    if column.kind != STRING:
        return ""
    texts = pd.Series(cells.values[cells.counts > 0].astype(str)).str.strip()
    few = check.sample_values(texts.iloc[:3])
    numbers = pd.to_numeric(texts.str.replace(",", ""), errors="coerce").notna()
    if numbers.mean() > _MOSTLY and len(texts) > _FEW:
        others = check.sample_values(texts[~numbers])
        return (
            f"holds strings of which {numbers.mean():.0%} are numbers, and becomes a category of each. Received: "
            f"{few}, and others {others}. Convert it, pandas.to_numeric(table[column], errors='coerce'), for a Numeric."
        )
    dates = texts.str.fullmatch(_DATE)
    if dates.mean() > _MOSTLY:
        return (
            f"holds dates as strings, and becomes a category of each. Received: {few}. Read it as a Datetime with its "
            f"format, such as Datetime({column.name!r}, format='%Y-%m-%d'), in `features`."
        )
    in_brackets = texts.str.fullmatch(r"[\[({].*[\])}]")
    if in_brackets.mean() > _MOSTLY:
        return (
            f"holds lists written as text, and becomes a category of each. Received: {few}. Read them as lists: "
            "table[column].map(ast.literal_eval), for a Sequence."
        )
    for separator in ("|", ";", ","):
        values = texts.str.split(separator).explode().str.strip()
        if texts.str.contains(separator, regex=False).mean() > _OFTEN and values.nunique() * 3 < len(texts):
            return (
                f"seems to hold several values in a cell, and becomes a category of each combination. Received: {few}. "
                f"Use Categorical(..., multi_hot=True, separator={separator!r}), or a Sequence."
            )
    words = texts.str.count(r"\s+") + 1
    if words.mean() > _WORDS and len(texts) > max(_OFTEN_DIFFERENT * len(cells.codes), _FEW):
        return (
            f"holds texts of {words.mean():.0f} words on average, most of them different, and becomes a category of "
            f"each. Received: {few}. Name it in `features` as Text({column.name!r})."
        )
    return ""
