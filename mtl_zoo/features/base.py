"""What a feature is to the rest of the house: one class a kind, which owns its whole life.

A kind is a frozen dataclass under `@register_feature`, in a file of its own. The house only loops over features
and asks them: which inputs they have, what they ask of the embedding, what they learn from a column, how they read it
in pandas and in a TensorFlow graph, how they are stored, summarised, inferred and checked for leaks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo._registry import Registry
from mtl_zoo.features._columns import Column
from mtl_zoo.features._growth import Growth, GrowthRules
from mtl_zoo.features._states import ColumnType, State, Unseen
from mtl_zoo.features.requests import InputSpec, Request

SIDES = ("user", "item", None)

FEATURES: Registry[type[Feature]] = Registry("kind")
Kind = TypeVar("Kind", bound="type[Feature]")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Distinct values of a feature's column in the training table, and rows without one; None where not counted."""

    distinct: int | None
    missing: int | None


@dataclasses.dataclass(frozen=True)
class InferRules:
    """What `infer` goes by.

    Args:
        dim: Width of embeddings.
        threshold: Whole numbers with at most so many distinct values are categories.
        encoding: Of numbers, as `Numeric` has it.
    """

    dim: int = 16
    threshold: int = 20
    encoding: str | None = "piecewise_linear"

    def __post_init__(self) -> None:
        check.check_int("embedding_dim", self.dim)
        check.check_int("threshold", self.threshold, minimum=0)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `infer` makes of a column and why; without a feature the column is left out.

    `warning` is what the user must hear, since the choice may lose what the column says.
    """

    feature: Feature | None
    rule: str
    distinct: int
    missing: int
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Feature:
    """What all features have in common. Use one of the kinds, such as Categorical.

    Args:
        name: Names the feature everywhere, and the model's input.
        column: Its column in a table. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.

    Example:

    >>> from mtl_zoo import Categorical
    >>> from mtl_zoo.features.spec import Feature
    >>> feature = Categorical("city", column="town", side="user")
    >>> isinstance(feature, Feature), feature.column, feature.side
    (True, 'town', 'user')
    """

    name: str
    column: str | None = dataclasses.field(default=None, kw_only=True)
    side: str | None = dataclasses.field(default=None, kw_only=True)

    kind: ClassVar[str] = ""
    # Whether it says which domain a row belongs to, or whose lists are read in order: what some models ask for.
    names_domain: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False
    # Whether only training knows it: scores are made without its column.
    bias: ClassVar[bool] = False
    # Whether it holds one of many values a row.
    is_id: ClassVar[bool] = False
    # Whether what it reads of its column teaches nothing to features that share its state, if there are others.
    borrows: ClassVar[bool] = False
    # Arguments that a later table may change in a fitted feature, and a model's tables with them.
    grows: ClassVar[tuple[str, ...]] = ()
    # What generated rows hold of it, `"category"` or `"number"`; None where no rows can be generated.
    generated_as: ClassVar[str | None] = None
    # Whether a file's strings are best read by their distinct values.
    reads_distinct: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.kind:
            raise TypeError(f"`{type(self).__name__}` is a base. Use one of the kinds {FEATURES.names()}.")
        check.check_name("name", self.name)
        if self.column is not None and (not isinstance(self.column, str) or not self.column):
            raise ValueError(f"`column` must name a column. Received: column={self.column!r}")
        check.check_choice("side", self.side, SIDES)

    @property
    def source(self) -> str:
        """The column it is read from."""
        return self.column or self.name

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one row's value."""
        return ()

    @property
    def rule(self) -> str:
        """How it reads its column, in a few words, for `describe`."""
        return ""

    def beside(self, features: Sequence[Feature]) -> Feature:
        """The feature as it is where it stands beside others, for a kind that takes something from one of them."""
        return self

    @property
    def entities_of(self) -> str | None:
        """The feature of an entity table whose values it gives, of a kind that reads lists of the table's ids."""
        return None

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        """Arguments that must be known before a model is built, and are not."""
        return ()

    def input_specs(self) -> dict[str, InputSpec]:
        """The model's inputs that it feeds, by name: one of its own name, unless a kind needs several."""
        raise NotImplementedError(f"{type(self).__name__} must define `input_specs()`.")

    def embed(self) -> Request:
        """What it asks of the embedding: `Rows`, `Number` or `Encoder`."""
        raise NotImplementedError(f"{type(self).__name__} must define `embed()`.")

    @property
    def share_key(self) -> tuple[str, str] | None:
        """Features with the same key share a table or an encoder; None shares with none."""
        return None

    def check_shares_with(self, first: Any) -> None:
        """Refuses what may not differ from `first`, which has the same `share_key`."""

    def _refuse_difference(self, first: Any, argument: str) -> None:
        ours, others = getattr(self, argument), getattr(first, argument)
        if ours != others:
            given = f"{first.name}.{argument}={others!r}, {self.name}.{argument}={ours!r}"
            rule = "must be the same for features that share the {} {!r}".format(*self.share_key or ("", ""))
            raise ValueError(f"`{argument}` {rule}. Received: {given}")

    # From a table.

    @property
    def state_key(self) -> tuple[str, str] | None:
        """(family, key) of what it learns from the training table, which features of one key share. None: nothing."""
        return None

    def read(self, column: Column) -> Any:
        """What `fit`, `sized` and `summarize` read of a column, made once; dates and bytes are refused."""
        column.refuse_special()
        return column

    def fit(self, sharing: Sequence[tuple[Any, Any]]) -> State | None:
        """What is learned from the training table.

        Args:
            sharing: (feature, reading) of each that has this `state_key`, this feature first.

        Raises:
            ValueError: A column holds what its feature cannot read.
        """
        return None

    def extended(
        self, state: Any, sharing: Sequence[tuple[Any, Any]], rules: GrowthRules
    ) -> tuple[State | None, Growth]:
        """What it has learned, extended by another table, and what that changed. By default it stays as it is.

        Ids that stand for a value must go on to stand for it, or for none.

        Args:
            state: What it has learned.
            sharing: As in `fit`, without columns that hold no value.
            rules: How.
        """
        return state, Growth()

    def sized(self, state: Any, reading: Any) -> Feature:
        """The feature with the sizes that `fit` found."""
        return self

    def sizes(self) -> dict[str, Any]:
        """What `sized` found that does not follow from the state, for a saved transform."""
        return {}

    def resized(self, state: Any, sizes: dict[str, Any]) -> Feature:
        """The feature with what `sizes` gave."""
        return dataclasses.replace(self, **sizes) if sizes else self

    def summarize(self, reading: Any) -> Summary:
        """Distinct and missing values of its column."""
        return Summary(None, int(reading.series.isna().sum()))

    def encode(self, state: Any, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """Arrays by input name, and what was in no vocabulary.

        A kind may leave this out: its graph form is then run on the raw column.
        """
        import tensorflow as tf

        form = self.raw_form()
        raw = fitted.raw_array(column) if form is None else self.raw_array(column)
        lookup = None if state is None else state.in_graph()
        arrays = self.encode_in_graph(lookup, tf.constant(raw))
        return {name: array.numpy() for name, array in arrays.items()}, None

    def encode_in_graph(self, lookup: Any, raw: Any) -> dict[str, Any]:
        """Tensors by input name, from the tensor of the raw column and what the state's `in_graph` gave."""
        raise NotImplementedError(f"{type(self).__name__} must define `encode_in_graph(lookup, raw)`.")

    def in_graph(self, lookup: Any) -> Any:
        """What `encode_in_graph` is given: by default, what the state's `in_graph` gave."""
        return lookup

    def values(self, state: Any) -> tuple[Any, ...] | None:
        """The values that ids 2, 3, ... stand for, where they are listed; `state` may be None."""
        return None

    def raw_form(self) -> InputSpec | None:
        """How an exported model takes its column; None: as the training table held it."""
        return None

    def raw_array(self, column: Column) -> np.ndarray:
        """The column in its `raw_form`."""
        raise NotImplementedError(f"{type(self).__name__} must define `raw_array(column)`.")

    def text_kinds(self, kind: str) -> tuple[str, ...] | None:
        """Kinds of cells that the text of a file may stand for, `kind` being the training table's; None: the usual."""
        return None

    def leak_auc(self, column: Column, rows: np.ndarray, label: np.ndarray) -> float | None:
        """The AUC with which the column alone tells a label's 1s from its 0s; None where that says nothing.

        Args:
            column: The training table's.
            rows: Positions of the rows that count.
            label: bool, of those rows.
        """
        return None

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        """The feature of this kind that a column of an ordinary table should be, or None if another kind should be.

        Kinds are asked in the order in which they were registered.
        """
        return None

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        """Features, each with cells of a column to be fitted on: what tests try. None of a kind with `entities_of`."""
        raise NotImplementedError(f"{cls.__name__} must define `examples()`.")

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        """Plain data that `from_config` makes the feature of; arrays and vocabularies are kept elsewhere."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.side is None:
            del config["side"]  # what 0.1.0 wrote, so that hashes of features stay
        return {"kind": self.kind, **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        return cls(**config)

    def identity(self) -> dict[str, Any]:
        """Plain data that differs where the feature gives other arrays by the same state, for a transform's hash."""
        return self.get_config()

    def write_arrays(self, folder: Path, stem: str) -> dict[str, Any]:
        """Writes what `get_config` leaves out, and gives what `read_arrays` needs to know of it."""
        return {}

    def read_arrays(self, folder: Path, kept: dict[str, Any], state: Any) -> Feature:
        """The feature with what `write_arrays` wrote."""
        return self


def register_feature(kind: str) -> Any:
    """Decorator of a feature's class: enters the kind under its name, which stands in saved files."""
    return FEATURES.register(kind, keep_as="kind")


def feature_from_config(config: dict[str, Any]) -> Feature:
    """The feature that `get_config` described.

    Example:

    >>> from mtl_zoo import Numeric
    >>> from mtl_zoo.features.spec import feature_from_config
    >>> feature_from_config(Numeric("price").get_config()) == Numeric("price")
    True
    """
    config = dict(config)
    return FEATURES[config.pop("kind")].from_config(config)


def features_to_config(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The configs of several features.

    Example:

    >>> from mtl_zoo import Categorical, Numeric
    >>> from mtl_zoo.features.spec import features_to_config
    >>> [config["kind"] for config in features_to_config([Categorical("city"), Numeric("price")])]
    ['categorical', 'numeric']
    """
    return [feature.get_config() for feature in features]


def features_from_config(configs: Sequence[dict[str, Any]]) -> tuple[Feature, ...]:
    """The features that `features_to_config` described.

    Example:

    >>> from mtl_zoo import Numeric
    >>> from mtl_zoo.features.spec import features_from_config, features_to_config
    >>> [feature.name for feature in features_from_config(features_to_config([Numeric("price")]))]
    ['price']
    """
    return tuple(feature_from_config(config) for config in configs)


def as_features(features: Feature | Sequence[Feature]) -> tuple[Feature, ...]:
    """`features` as a checked tuple: at least one, different names, what is shared alike.

    Example:

    >>> from mtl_zoo import Numeric
    >>> from mtl_zoo.features.spec import as_features
    >>> len(as_features(Numeric("price")))
    1
    """
    features = (features,) if isinstance(features, Feature) else tuple(features)
    if not features:
        raise ValueError("`features` must hold at least one feature. Received: features=()")
    for feature in features:
        if not isinstance(feature, Feature):
            kinds = ", ".join(sorted(kind.__name__ for kind in FEATURES.in_order()))
            raise TypeError(f"`features` must be {kinds}. Received: {feature!r}")
    check.check_unique_names("features", [feature.name for feature in features])
    features = tuple(feature.beside(features) for feature in features)
    firsts: dict[tuple[str, str], Feature] = {}
    for feature in features:
        if feature.share_key is not None:
            feature.check_shares_with(firsts.setdefault(feature.share_key, feature))
    return features


def require_fitted(features: Sequence[Feature]) -> None:
    """Refuses features whose sizes are not known yet.

    Example:

    >>> from mtl_zoo import Categorical
    >>> from mtl_zoo.features.spec import require_fitted
    >>> require_fitted([Categorical("city", size=9)])
    """
    unknown = [f.name for f in features if f.unknown_sizes()]
    if unknown:
        raise ValueError(
            "`features` must know their number of ids (and `length`, if multi_hot) before a model is built: give "
            f"`vocabulary`, `size` or `hash_buckets`, or pass a fitted FeatureTransform. Received without: {unknown}"
        )
