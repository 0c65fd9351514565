from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceABC
from typing import Any, ClassVar

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import Column, Lists
from mtl_zoo.features._joined import Listing
from mtl_zoo.features._states import ColumnType, Unseen, unseen_of
from mtl_zoo.features.base import Feature, Summary, feature_from_config, register_feature
from mtl_zoo.features.requests import Encoder, InputSpec, Number, Rows
from mtl_zoo.features.sequence import Sequence


@register_feature("entity_sequence")
@dataclasses.dataclass(frozen=True)
class EntitySequence(Feature):
    """A list of ids of an entity table, read by what the table knows of each: a history of news by their titles.

    The feature `of` is read from an `EntityTable`. For each id of the list, its entity's value of that feature becomes
    a vector, as it does for the candidate: by the same vocabulary, scaling or language model, and by the same rows of
    embedding tables. The vectors, oldest first, are then one vector:

        y = encoder(v_1, ..., v_n),    v_i = what `of` makes of entity i

    Layers that `of` trains (a CNN over words, a projection of vectors) have a copy of their own here. An id that is
    missing, or that the table lacks, and an entity without a value count as padding. So items that no training row
    holds bring what is known of them to the history as well, and to the exported model, which takes the ids.

    Args:
        name: Names the feature and the model's inputs: for each of `of`, one that has (batch, length) in front of the
            shape of a row, (batch, length times tokens) where ids of tokens are looked up.
        of: The name of a feature that is read from an entity table: `Text`, `Vector`, `Image`, `Categorical` or
            `Sequence`, without weights; not a language model that is trained.
        column: The column of lists, or of strings split at `separator`. Default: `name`.
        length: The most ids kept, the last ones.
        pooling: `"mean"`, `"sum"` or `"max"` over the list.
        separator: What splits a string into ids.
        encoder: In place of `pooling`: `"din"` (needs `query`), `"sasrec"`, `"gru"` or `"attention"`, see
            `mtl_zoo.layers.history`, or a Keras layer, as in `Sequence`.
        query: Name of the candidate's feature, whose vector the encoder reads the list for; as wide as those of the
            list, such as `of` itself.
        lender: The feature `of`, which a transform or a model sets.

    An input holds a row for each id of each list: 4 bytes times length times the width of a row of `of`.

    Raises:
        ValueError: `of` is read from no entity table, or is a feature without a vector, with weights, or of a language
            model that is trained; the ids are not of the table's kind.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import Categorical, EntitySequence, EntityTable, FeatureTransform
    >>> news = pd.DataFrame({"news": [7, 8, 9], "topic": ["sport", "art", "sport"]})
    >>> clicks = {"news": [7, 8], "history": [[9, 8], []]}
    >>> features = [Categorical("topic"), EntitySequence("history", of="topic", length=3)]
    >>> transform = FeatureTransform(features, entities=EntityTable(news, key="news")).fit(clicks)
    >>> transform.encode({"news": [7, 7], "history": [[8, 9, 5], [9]]})["history"].tolist()
    [[2, 3, 0], [3, 0, 0]]

    Reference: Wu et al., EMNLP 2019 (NRMS, news by their titles), https://aclanthology.org/D19-1671.
    """

    of: str = dataclasses.field(kw_only=True)
    length: int = dataclasses.field(default=50, kw_only=True)
    pooling: str = dataclasses.field(default="mean", kw_only=True)
    separator: str = dataclasses.field(default="|", kw_only=True)
    encoder: Any = dataclasses.field(default=None, kw_only=True, compare=False)
    query: str | None = dataclasses.field(default=None, kw_only=True)
    lender: Any = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)

    is_ordered: ClassVar[bool] = True
    grows: ClassVar[tuple[str, ...]] = ("lender",)  # it stands beside

    def __post_init__(self) -> None:
        super().__post_init__()
        check.check_name("of", self.of)
        check.check_choice("pooling", self.pooling, ("mean", "sum", "max"))
        self._reader  # noqa: B018 - checks what it shares with Sequence

    @property
    def _reader(self) -> Sequence:
        """What reads the ids, and checks the arguments that it has too."""
        shared = {name: getattr(self, name) for name in ("length", "separator", "encoder", "query")}
        return Sequence(self.name, column=self.column, pooling=self.pooling, **shared)

    def beside(self, features: SequenceABC[Feature]) -> Feature:
        """With the feature `of`, if it is one of `features`."""
        lender = next((feature for feature in features if feature.name == self.of), None)
        if lender is None:
            return self
        _check_lender(self, lender)
        return dataclasses.replace(self, lender=lender)

    @property
    def entities_of(self) -> str:
        return self.of

    @property
    def rule(self) -> str:
        how = self.encoder if isinstance(self.encoder, str) else "a layer" if self.encoder else self.pooling
        return f"{how} of {self.of!r} of up to {self.length} entities"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("of",) if self.lender is None else tuple(self.lender.unknown_sizes())

    def _inputs(self) -> dict[str, tuple[str, InputSpec]]:
        """By input name, that of `of` and what the input is."""
        looks_up = isinstance(self.lender.embed(), Rows)
        found = {}
        for name, spec in self.lender.input_specs().items():
            tokens = spec.shape[0] if spec.shape else 1
            shape = (self.length * tokens,) if looks_up else (self.length, *spec.shape)
            own = f"{self.name}{name.removeprefix(self.of)}"
            found[own] = (name, dataclasses.replace(spec, shape=shape))
        return found

    def input_specs(self) -> dict[str, InputSpec]:
        return {name: spec for name, (_, spec) in self._inputs().items()}

    def embed(self) -> Rows | Encoder:
        from mtl_zoo.layers.entity_list import EntityListEncoder

        asked = self.lender.embed()
        history: Any = self._reader.embed().encoder
        history = self.pooling if history is None else history.layer
        key = f"entities of {self.name}"
        if isinstance(asked, Encoder):
            return Encoder(EntityListEncoder(self.length, asked.layer, history), key, self.query)
        item = asked.pooling if asked.encoder is None else asked.encoder.layer
        tokens = self.lender.shape[0] if self.lender.shape else 1
        layer = EntityListEncoder(self.length, item, history, tokens, name=f"{self.name}_encoder")
        return dataclasses.replace(asked, pooling=None, encoder=Encoder(layer, key, self.query))

    # From a table.

    def read(self, column: Column) -> Lists:
        return column.lists(self.separator)

    def summarize(self, reading: Lists) -> Summary:
        missing = reading.num_rows - int(np.count_nonzero(np.bincount(reading.rows)))
        return Summary(int((reading.cells.counts > 0).sum()), missing)

    def encode(self, state: Listing, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """What each entity of a list has, and the ids that the table lacks."""
        arrays, _ = self._reader.encode(state.keys, column, fitted)
        cells = self.read(column).cells
        places = arrays[self.name]
        found = {
            name: state.arrays[given][places].reshape(len(places), *_known(spec.shape))
            for name, (given, spec) in self._inputs().items()
        }
        return found, unseen_of(cells, state.keys.ids(cells))

    def encode_in_graph(self, lookup: Any, raw: Any) -> dict[str, Any]:
        """`lookup` is the table in graph form."""
        import tensorflow as tf

        places = self._reader.encode_in_graph(lookup.keys, raw)[self.name]
        return {
            name: tf.reshape(tf.gather(lookup.arrays[given], places), [-1, *_known(spec.shape)])
            for name, (given, spec) in self._inputs().items()
        }

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        """None: it reads an entity table through another feature."""
        return []

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "encoder": self._reader.get_config().get("encoder")}
        return {**config, "lender": None if self.lender is None else self.lender.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        import keras

        config = dict(config)
        if config["lender"] is not None:
            config["lender"] = feature_from_config(config["lender"])
        if isinstance(config["encoder"], dict):
            config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**config)

    def identity(self) -> dict[str, Any]:
        config = self.get_config()
        del config["lender"]  # it stands beside
        return config


def _known(shape: tuple[int | None, ...]) -> list[int]:
    return [int(size) for size in shape if size is not None]


def _check_lender(feature: EntitySequence, lender: Feature) -> None:
    """Refuses a feature whose values cannot be read by lists."""
    why = ""
    if lender.entities_of is not None:
        why = "a list itself"
    elif not lender.unknown_sizes():
        asked = lender.embed()
        dtypes = {spec.dtype for spec in lender.input_specs().values()}
        if isinstance(asked, Number):
            why = "a number, which has no vector"
        elif isinstance(asked, Rows) and asked.weights:
            why = "a list with weights"
        elif isinstance(asked, Encoder) and "string" in dtypes:
            why = "read as strings by its layer"
        elif isinstance(asked, Encoder) and dtypes == {"int32"}:
            why = f"a network over ids of tokens, which would run {feature.length} times a row. Freeze it"
    if why:
        raise ValueError(
            "`of` must name a text, vector, picture or ids of an entity table. "
            f"Received: of={feature.of!r} for feature {feature.name!r}, which is {why}"
        )
