"""A pretrained language model as a specification: where it lies, and how it is used."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.language import _backbones, _presets, _tokenizers
from mtl_zoo.language._folder import ModelFolder, open_folder
from mtl_zoo.language._vectors import VectorStore, default_cache

if TYPE_CHECKING:
    from mtl_zoo.language._encoding import TextEncoder
    from mtl_zoo.language.feature import LanguageFeature

MODES, POOLINGS, KEPT = ("frozen", "lora", "prompt", "full"), ("mean", "cls", "last"), ("reference", "copy")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
# Raised when the same settings give other vectors, so that older ones on disk are not read.
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A pretrained language model: an encoder of the BERT or RoBERTa family, or a decoder of the Llama family.

    It is a description: making one reads nothing, and TensorFlow and keras-hub are imported when it is first used. A
    path is a folder of Hugging Face layout, with `config.json`, `model.safetensors` and `vocab.txt` or
    `tokenizer.json`. Pickles are never opened. Nothing is downloaded unless a preset is named.

    `"frozen"`: texts become vectors once, which are kept on disk, and a model reads the vectors. `"lora"`: the model is
    fed token ids and trains low-rank updates of the queries and values. `"prompt"`: it trains vectors that stand in
    front of the tokens of a decoder, a prompt that is learned. `"full"`: it trains every weight.

    Args:
        path: A folder, `"hf://owner/name"`, or the name of a preset of keras-hub (BERT family).
        mode: `"frozen"`, `"lora"`, `"prompt"` or `"full"`. Default: `"frozen"`.
        rank: Of the low-rank updates. Default: 8.
        alpha: Their scale is alpha / rank. Default: `rank`.
        pooling: Which hidden states become the vector: the `"mean"` of all tokens, the first (`"cls"`), or the
            `"last"`. Default: `"mean"`.
        normalize: Whether vectors are divided by their length. Default: False.
        max_length: Tokens of a text that count, those that start and end it included. Default: 128.
        layers: How many of the first layers are kept. Default: all.
        dtype: The Keras dtype policy that it computes in. Default: `"float32"`.
        dropout: Share of activations that training drops, unless it is frozen. Default: 0.0.
        checkpointing: Whether training keeps the input of each block alone and computes the rest again. Default: False.
        prompt_length: Vectors of a learned prompt, which count as tokens. Default: 16.
        batch_size: Texts at a time when vectors are made. Default: 32.
        cache: The folder of vectors; False keeps them in memory. Default: `$MTL_ZOO_CACHE/vectors`, or
            `~/.cache/mtl_zoo/vectors`.
        keep: What a saved transform holds of a frozen model: `"reference"`, its path and a hash of its content, or
            `"copy"`, all of it. Default: `"reference"`.
        architecture: Set by files: what its configuration said.

    Raises:
        ValueError: Unknown words, or numbers out of their range.

    Example:

    >>> from mtl_zoo import LanguageModel
    >>> LanguageModel("models/all-MiniLM-L6-v2", mode="lora", rank=4).rank
    4

    Reference: Devlin et al., arXiv:1810.04805 (BERT); Touvron et al., arXiv:2302.13971 (Llama); Hu et al.,
    arXiv:2106.09685 (LoRA); Lester et al., arXiv:2104.08691 (learned prompts).
    """

    path: str
    mode: str = dataclasses.field(default="frozen", kw_only=True)
    rank: int = dataclasses.field(default=8, kw_only=True)
    alpha: float | None = dataclasses.field(default=None, kw_only=True)
    pooling: str = dataclasses.field(default="mean", kw_only=True)
    normalize: bool = dataclasses.field(default=False, kw_only=True)
    max_length: int = dataclasses.field(default=128, kw_only=True)
    layers: int | None = dataclasses.field(default=None, kw_only=True)
    dtype: str = dataclasses.field(default="float32", kw_only=True)
    dropout: float = dataclasses.field(default=0.0, kw_only=True)
    checkpointing: bool = dataclasses.field(default=False, kw_only=True)
    prompt_length: int = dataclasses.field(default=16, kw_only=True)
    batch_size: int = dataclasses.field(default=32, kw_only=True)
    cache: str | bool | None = dataclasses.field(default=None, kw_only=True, compare=False)
    keep: str = dataclasses.field(default="reference", kw_only=True)
    architecture: dict[str, Any] | None = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not str(self.path):
            raise ValueError(f"`path` must be a folder or the name of a preset. Received: path={self.path!r}")
        object.__setattr__(self, "path", str(self.path))
        check.check_choice("mode", self.mode, MODES)
        check.check_int("rank", self.rank)
        if self.alpha is not None:
            check.check_number("alpha", self.alpha, above=0)
        check.check_choice("pooling", self.pooling, POOLINGS)
        check.check_int("max_length", self.max_length, minimum=3)
        if self.layers is not None:
            check.check_int("layers", self.layers)
        check.check_choice("dtype", self.dtype, DTYPES)
        check.check_number("dropout", self.dropout, minimum=0, below=1)
        check.check_int("prompt_length", self.prompt_length)
        check.check_int("batch_size", self.batch_size)
        check.check_choice("keep", self.keep, KEPT)
        if self.cache is True or not isinstance(self.cache, str | os.PathLike | bool | None):
            raise ValueError(f"`cache` must be a folder, False or None. Received: cache={self.cache!r}")

    # What it is.

    @property
    def is_frozen(self) -> bool:
        return self.mode == "frozen"

    def folder(self) -> ModelFolder:
        """Its files, once the configuration is understood.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A damaged file (`DamagedFile`), an unknown type, weights as a pickle only.
        """
        return open_folder(_presets.resolve(self.path))

    @property
    def known_architecture(self) -> dict[str, Any]:
        """Plain data that describes the network, cut to `layers`."""
        found = self.folder().architecture if self.architecture is None else self.architecture
        if self.layers is not None and self.layers > found["layers"]:
            raise ValueError(f"`layers` must be at most {found['layers']} for {self.path!r}. Received: {self.layers}")
        room = found["positions"]
        if self.mode == "prompt":
            _backbones.check_mode(self.mode, found["family"])
            room -= self.prompt_length
        if self.max_length > room:
            raise ValueError(f"`max_length` must be at most {room} for {self.path!r}. Received: {self.max_length}")
        return {**found, "layers": self.layers or found["layers"]}

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.known_architecture["width"]

    def tokenizer(self) -> _tokenizers.Tokenizer:
        """Its own tokenizer."""
        return _tokenizer_at(str(self.folder().path), self._files_state())

    def _files_state(self) -> tuple[tuple[str, int, int], ...]:
        files = self.folder().tokenizer_files
        return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)

    @property
    def row_shape(self) -> tuple[int]:
        """Shape of a row of what a model is fed: (width,) of a frozen one, otherwise (max_length,)."""
        return (self.width,) if self.is_frozen else (self.max_length,)

    @property
    def row_dtype(self) -> str:
        """Type of what a model is fed: vectors of a frozen one, otherwise token ids."""
        return "float32" if self.is_frozen else "int32"

    @property
    def rule(self) -> str:
        """What it is, in a few words."""
        return f"{Path(self.path).name}, {self.mode}, {self.pooling} of up to {self.max_length} tokens"

    # What it computes.

    def layer(self, units: int | None = None, name: str | None = None) -> Any:
        """A `LanguageEncoder` with the weights of the folder, which needs the folder no more.

        Args:
            units: Width of a trained projection after it. Default: none.
            name: Of the layer.
        """
        made = self._layer(units, name=name)
        made.build((None, self.max_length))
        made.load_tensors(self.folder().tensors())
        return made

    def feature_layer(self, units: int | None = None) -> Any:
        """What a model has of it: a projection of a frozen one's vectors, otherwise a `LanguageEncoder` not yet built.

        Args:
            units: Width of the projection. Default: the language model's, without a projection if it is trained.
        """
        import keras

        if self.is_frozen:
            return keras.layers.Dense(units or self.width, name="projection")
        source = str(_presets.resolve(self.path))
        return self._layer(units, source=source, source_required=not getattr(self, "_is_from_file", False))

    def _layer(self, units: int | None, **options: Any) -> Any:
        from mtl_zoo.language.layer import LanguageEncoder

        names = ("mode", "rank", "alpha", "pooling", "normalize", "dropout", "checkpointing", "prompt_length", "dtype")
        own = {name: getattr(self, name) for name in names}
        return LanguageEncoder(self.known_architecture, units=units, **own, **options)

    def vectors(self, texts: Iterable[str | None]) -> np.ndarray:
        """float32 (texts, width) vectors of the frozen model; zeros for missing and empty texts.

        Each distinct text is encoded once and kept in the cache, which other processes share. A run that is killed goes
        on where it was, 15 seconds of work aside. A progress bar appears after two seconds.

        Args:
            texts: Strings, or None.

        Raises:
            ValueError: `texts` holds something else.
        """
        cells = pd.Series(list(texts), dtype=object)
        odd = [cell for cell in cells[cells.notna()] if not isinstance(cell, str)]
        if odd:
            raise ValueError(f"`texts` must hold strings. Received: {check.sample_values(odd)}")
        codes, distinct = pd.factorize(cells.where(cells.notna(), ""))
        known = [text for text in distinct if text]
        found = np.zeros((len(distinct), self.width), dtype=np.float32)
        if known:
            found[[i for i, text in enumerate(distinct) if text]] = self.encoder().vectors(known)
        return found[codes]

    def encoder(self) -> TextEncoder:
        """What turns distinct texts into vectors; one for all models of this content and these settings."""
        frozen = dataclasses.replace(self, mode="frozen", keep="reference")
        return _encoder_of(frozen, self.vectors_hash(), self.vectors_folder())

    def vectors_folder(self) -> Path | None:
        """Where its vectors lie on disk, if they do."""
        if self.cache is False:
            return None
        root = default_cache() if self.cache is None else Path(str(self.cache)).expanduser()
        return root / self.vectors_hash()[:32]

    def vectors_hash(self) -> str:
        """A hash of all that decides its vectors: weights, tokenizer and settings."""
        about = {**self.settings(), "weights": self.folder().weights_hash(), "tokenizer": self.tokenizer().identity()}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """What decides the vectors, the files aside."""
        names = ("pooling", "normalize", "max_length", "dtype")
        layers = self.known_architecture["layers"]
        return {**{name: getattr(self, name) for name in names}, "layers": layers, "version": _VERSION}

    def feature_encoder(self) -> LanguageFeature:
        """What a feature of texts asks of it: inputs, arrays, tensors, a layer, and what is saved."""
        from mtl_zoo.language.feature import LanguageFeature

        return LanguageFeature.of(self)

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        """Plain data that `from_config` makes it of; it builds the network without the folder."""
        config = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        try:
            config["architecture"] = self.folder().architecture if self.architecture is None else self.architecture
        except (OSError, ValueError):
            config["architecture"] = None
        if self.mode != "prompt":
            del config["prompt_length"]
        cache = config["cache"]
        config["cache"] = str(cache) if isinstance(cache, str | os.PathLike) else cache
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LanguageModel:
        made = cls(**config)
        # The weights of what is read from a file come from there, and the folder may be gone.
        object.__setattr__(made, "_is_from_file", True)
        return made


@functools.lru_cache(maxsize=8)
def _tokenizer_at(path: str, state: Any) -> _tokenizers.Tokenizer:
    return _tokenizers.of_folder(open_folder(path))


@functools.lru_cache(maxsize=4)
def _encoder_of(model: LanguageModel, content: str, folder: Path | None) -> TextEncoder:
    from mtl_zoo.language._encoding import TextEncoder

    about = {"model": model.path, "settings": model.settings(), "hash": content}
    store = VectorStore(folder, model.width, about)
    return TextEncoder(model.layer(), model.tokenizer(), store, model.max_length, model.batch_size)
