from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo import _validation as check
from mtl_zoo.features import _pretrained
from mtl_zoo.features._columns import BYTES, EMPTY, STRING, Cells, Column
from mtl_zoo.features._pieces import BYTES_PER_TOKEN, Pieces, given_pieces, is_encodable, learn_pieces
from mtl_zoo.features._states import ColumnType, Unseen
from mtl_zoo.features.base import Feature, Summary, register_feature
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, MOST_IDS, Encoder, InputSpec, Rows


@register_feature("text")
@dataclasses.dataclass(frozen=True)
class Text(Feature):
    """A feature that is a text: a review, a title, a summary. Its words are cut into pieces, which are embedded.

    The pieces are WordPieces, learned from the different texts of the training table by `FeatureTransform.fit` unless
    `vocabulary` gives them. A text is brought to its first `max_length` pieces, ids (batch, max_length): 0 padding,
    1 unknown, 2.. pieces. Each looks up a vector of width `dim`, and the encoder makes one vector of them. A text that
    is missing, empty or blank has no piece, and is a vector of zeros.

    Args:
        name: Names the feature and the model's input, an int32 tensor of shape (batch, max_length).
        encoder: How the vectors of the pieces become one: `"mean"` (their mean), `"cnn"`, `"gru"`, `"lstm"`,
            `"attention"` or `"transformer"` (see `mtl_zoo.layers.text`, whose layers take sizes of your choice), or a
            Keras layer of yours, called as `layer(vectors, mask=real)` with (batch, max_length, dim) and booleans
            (batch, max_length), to (batch, any width). Each model trains and saves a copy of its own. Or a pretrained
            `LanguageModel`, which brings its own pieces and `max_length`: then `vocabulary`, `vocabulary_size`,
            `max_length`, `lowercase` and `dropout_tokens` are not read, and the input is (batch, its width) float32
            vectors if it is frozen, ids of its own vocabulary if it is trained.
        column: Its column in a table. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        dim: Width of the vectors of the pieces, or of the projection after a pretrained model.
        max_length: The most pieces of a text; its first ones are kept. No more than 64 bytes for each are read of it.
        vocabulary_size: The most pieces that are learned.
        vocabulary: The pieces in the order of their ids, or a file with one a line (a BERT `vocab.txt`); pieces that go
            on within a word start with `##`. Default: learned.
        lowercase: Texts are read in small letters and without accents.
        dropout_tokens: The share of the pieces that are read as unknown in training, drawn anew at every step.
        key: Features with the same key share pieces, vectors and encoder.
        num_ids: Rows of the table of vectors, ids 0 and 1 included. Set by `fit`.

    Raises:
        ValueError: An argument is out of range; the vocabulary holds a piece twice.
        TypeError: `encoder` is neither a name nor a layer.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import FeatureTransform, Text
    >>> table = pd.DataFrame({"title": ["A good film", "a BAD film", None]})
    >>> transform = FeatureTransform(Text("title", max_length=4, vocabulary=["a", "good", "bad", "film"])).fit(table)
    >>> transform.encode(table)["title"].tolist()
    [[2, 3, 5, 0], [2, 4, 5, 0], [0, 0, 0, 0]]
    """

    encoder: Any = dataclasses.field(default="mean", compare=False)
    dim: int = dataclasses.field(default=32, kw_only=True)
    max_length: int = dataclasses.field(default=64, kw_only=True)
    vocabulary_size: int = dataclasses.field(default=8000, kw_only=True)
    vocabulary: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True, repr=False)
    lowercase: bool = dataclasses.field(default=True, kw_only=True)
    dropout_tokens: float = dataclasses.field(default=0.0, kw_only=True)
    key: str | None = dataclasses.field(default=None, kw_only=True)
    num_ids: int | None = dataclasses.field(default=None, kw_only=True)

    reads_distinct = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.encoder, str):
            if self.encoder != "mean":
                check.check_choice("encoder", self.encoder, encoder_names())
        elif not callable(self.encoder) and not self.is_pretrained:
            raise TypeError(
                f"`encoder` must be one of {', '.join(map(repr, encoder_names()))}, a Keras layer or a LanguageModel. "
                f"Received: encoder={self.encoder!r}"
            )
        check.check_int("dim", self.dim, maximum=check.MAX_UNITS)
        check.check_int("max_length", self.max_length, maximum=check.MAX_UNITS)
        check.check_int("vocabulary_size", self.vocabulary_size, maximum=MOST_IDS)
        check.check_number("dropout_tokens", self.dropout_tokens, minimum=0, below=1)
        if not isinstance(self.lowercase, bool):
            raise ValueError(f"`lowercase` must be True or False. Received: lowercase={self.lowercase!r}")
        if self.key is not None:
            check.check_name("key", self.key)
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", given_pieces(self.vocabulary))
            object.__setattr__(self, "num_ids", FIRST_ID + len(self.vocabulary))

    @property
    def is_pretrained(self) -> bool:
        """Whether a pretrained model encodes it."""
        return _pretrained.name_of(self.encoder) is not None

    @property
    def shape(self) -> tuple[int | None, ...]:
        return self.encoder.row_shape if self.is_pretrained else (self.max_length,)

    @property
    def rule(self) -> str:
        if self.is_pretrained:
            return self.encoder.rule
        pieces = f"{self.vocabulary_size} learned" if self.vocabulary is None else f"{len(self.vocabulary)} given"
        encoder = self.encoder if isinstance(self.encoder, str) else type(self.encoder).__name__
        return f"{encoder} of up to {self.max_length} of {pieces} pieces"

    # In a model.

    @property
    def _shared(self) -> str:
        return self.key or self.name

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("num_ids",) if self.num_ids is None and not self.is_pretrained else ()

    def input_specs(self) -> dict[str, InputSpec]:
        return {self.name: InputSpec(self.shape, self.encoder.row_dtype if self.is_pretrained else "int32")}

    def embed(self) -> Rows | Encoder:
        if self.is_pretrained:
            return Encoder(self.encoder.feature_layer(self.dim), f"language model of {self._shared}")
        # No other feature's table or encoder can have such a name.
        table = f"pieces of {self._shared}"
        if self.encoder == "mean":
            return Rows(table, self.num_ids or 0, self.dim, pooling="mean", unknown_rate=self.dropout_tokens)
        layer = self.encoder
        if isinstance(layer, str):
            from mtl_zoo.layers.text import make_text_encoder

            layer = make_text_encoder(layer, self.dim, self.max_length, name=f"{self._shared}_encoder")
        encoder = Encoder(layer, table)
        rate = self.dropout_tokens
        return Rows(table, self.num_ids or 0, self.dim, pooling=None, encoder=encoder, unknown_rate=rate)

    @property
    def share_key(self) -> tuple[str, str]:
        return ("text", self._shared)

    def check_shares_with(self, first: Any) -> None:
        for argument in ("dim", "num_ids", "dropout_tokens"):
            self._refuse_difference(first, argument)
        if self._encoder_config() != first._encoder_config():
            self._refuse_difference(first, "encoder")

    def _encoder_config(self) -> Any:
        import keras

        if isinstance(self.encoder, str):
            return self.encoder
        if self.is_pretrained:
            return _pretrained.model_config(self.encoder)
        return keras.saving.serialize_keras_object(self.encoder)

    # From a table.

    @property
    def state_key(self) -> tuple[str, str]:
        return (_pretrained.Pretrained.family if self.is_pretrained else Pieces.family, self._shared)

    def read(self, column: Column) -> Cells:
        """The different texts of the column.

        Raises:
            ValueError: It holds no strings, or lone surrogates, which stand for no character.
        """
        if column.is_list or column.kind not in (STRING, EMPTY):
            convert = "str.decode('utf-8')" if column.kind == BYTES else "astype(str)"
            raise ValueError(
                f"`{column.name}` must hold strings, for feature {self.name!r}. Received: {column.shown}. "
                f"Convert it: table[column].{convert}."
            )
        cells = column.cells()
        surrogates = np.array([not is_encodable(text) for text in cells.values], bool)
        cells.refuse("must hold text without lone surrogates, which stand for no character", surrogates)
        return cells

    def fit(self, sharing: Sequence[tuple[Any, Cells]]) -> Pieces | _pretrained.Pretrained:
        """The pieces of the features that share them, given or learned from all of their texts."""
        for feature, cells in sharing:
            for argument in ("vocabulary", "vocabulary_size", "lowercase"):
                feature._refuse_difference(self, argument)
            if not len(_written(cells)):
                raise ValueError(
                    f"`{cells.column}` must hold a text to fit feature {feature.name!r}. "
                    f"Received: {len(cells.codes)} rows, all missing or blank"
                )
        if self.is_pretrained:
            return _pretrained.Pretrained(self.encoder.feature_encoder())
        if self.vocabulary is not None:
            return Pieces(self.vocabulary, self.lowercase)
        distinct = sorted({text for feature, cells in sharing for text in feature._cut(_written(cells))})
        pieces = learn_pieces(lambda: distinct, self.vocabulary_size, self.lowercase)
        if not pieces:
            raise ValueError(
                f"`{sharing[0][1].column}` must hold a text to fit feature {self.name!r}. "
                f"Received: {len(distinct)} texts without a character that can be read"
            )
        return Pieces(pieces, self.lowercase)

    def _cut(self, texts: np.ndarray) -> list[str]:
        """What is read of each at most."""
        return [text[: self.max_length * BYTES_PER_TOKEN] for text in texts]

    def sized(self, state: Any, reading: Cells) -> Feature:
        return self.resized(state, {})

    def resized(self, state: Any, sizes: dict[str, Any]) -> Feature:
        if self.is_pretrained:
            return dataclasses.replace(self, encoder=state.reading.model, **sizes)
        return dataclasses.replace(self, num_ids=state.num_ids, **sizes)

    def summarize(self, reading: Cells) -> Summary:
        blank = np.array([not text.strip() for text in reading.values], bool)
        distinct = int(((reading.counts > 0) & ~blank).sum())
        return Summary(distinct, reading.missing + int(reading.counts[blank].sum()))

    def encode(self, state: Any, column: Column, fitted: ColumnType) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """Ids (n, max_length). Words that no pieces make are id 1, and no value that was not seen."""
        cells = self.read(column)
        if self.is_pretrained:
            return {self.name: state.reading.encode([*cells.values, ""])[cells.codes]}, None
        none = np.full((1, self.max_length), MISSING_ID, np.int32)
        ids = np.concatenate([state.ids(cells.values, self.max_length), none])
        return {self.name: ids[cells.codes]}, None

    def encode_in_graph(self, lookup: Any, raw: Any) -> dict[str, Any]:
        if self.is_pretrained:
            return {self.name: lookup(raw)}
        return {self.name: lookup.ids_in_graph(raw, self.max_length)}

    def values(self, state: Any) -> tuple[Any, ...] | None:
        if self.is_pretrained:
            return None
        return self.vocabulary if state is None else state.pieces

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        texts = ["A good film, and long", "bad film", None, "  ", "GOOD! good? 好 \U0001f600", "a\x00b café"]
        made: list[tuple[Feature, list[Any]]] = [
            (cls("review", encoder, dim=4, max_length=6, vocabulary_size=60), texts) for encoder in encoder_names()
        ]
        pieces = ("good", "film", "a", "##s")
        given = cls("title", dim=3, max_length=3, vocabulary=pieces, lowercase=False, dropout_tokens=0.5)
        return [*made, (given, texts)]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        """Sizes only: the pieces live in the transform."""
        return {**super().get_config(), "vocabulary": None, "encoder": self._encoder_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        import keras

        encoder = config["encoder"]
        if isinstance(encoder, dict) and "pretrained" in encoder:
            encoder = _pretrained.model_from_config(encoder)
        elif not isinstance(encoder, str):
            encoder = keras.saving.deserialize_keras_object(encoder)
        return cls(**{**config, "encoder": encoder})

    def write_arrays(self, folder: Path, stem: str) -> dict[str, Any]:
        return {} if self.vocabulary is None else {"vocabulary_given": True}  # it stands in the transform's state

    def read_arrays(self, folder: Path, kept: dict[str, Any], state: Any) -> Feature:
        if self.is_pretrained:
            return dataclasses.replace(self, encoder=state.reading.model)
        return dataclasses.replace(self, vocabulary=state.pieces) if kept.get("vocabulary_given") else self


def encoder_names() -> tuple[str, ...]:
    """What `encoder` may be by name; Keras is imported for it."""
    from mtl_zoo.layers.text import TEXT_ENCODERS

    return ("mean", *TEXT_ENCODERS)


def _written(cells: Cells) -> np.ndarray:
    """The texts in use that are not blank."""
    return np.array([t for t, n in zip(cells.values, cells.counts, strict=True) if n and t.strip()], dtype=object)
