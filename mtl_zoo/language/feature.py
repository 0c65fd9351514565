"""What a feature of texts asks of a language model: inputs, arrays, tensors, a layer, and what is saved with it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo._files import name_within, whole_folder
from mtl_zoo.features._pretrained import TEXT_MODELS
from mtl_zoo.language import _tokenizers
from mtl_zoo.language._folder import CONFIG
from mtl_zoo.language._vectors import default_cache
from mtl_zoo.language.model import LanguageModel

_WHAT = "a transform"


@dataclasses.dataclass(frozen=True)
class LanguageFeature:
    """A language model as the encoder of a column of texts.

    A frozen model is part of the transform: `encode` gives a vector a text, the graph runs the network, and a model has
    a trained projection. One that is trained is part of the model: `encode` gives token ids, 0 where there is none.

    Args:
        model: The language model.
        tokenizer: Its tokenizer.
        content: A hash of its weights, if it is frozen.

    Example:

    >>> from mtl_zoo.language import LanguageFeature
    >>> sorted(name for name in vars(LanguageFeature) if not name.startswith("_"))
    ['content', 'encode', 'identity', 'in_graph', 'of', 'read', 'write']
    """

    model: LanguageModel
    tokenizer: _tokenizers.Tokenizer = dataclasses.field(repr=False)
    content: str | None = None

    @classmethod
    def of(cls, model: LanguageModel) -> LanguageFeature:
        """That of a model whose folder is there."""
        model.known_architecture  # noqa: B018 - refuses what the folder's model has not
        content = model.folder().weights_hash() if model.is_frozen else None
        known = dataclasses.replace(model, architecture=model.folder().architecture)
        return cls(known, model.tokenizer(), content)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, *model.row_shape) of `model.row_dtype`; '' is a missing text and gives zeros.

        Raises:
            FileNotFoundError: The folder of a frozen model is gone.
            ValueError: The folder holds another model now.
        """
        if self.model.is_frozen:
            self._check_folder()
            return self.model.vectors(texts)
        return _tokenizers.padded(self.tokenizer.lists(texts, self.model.max_length), self.model.max_length)

    def _check_folder(self) -> None:
        if self.content is not None and self.model.folder().weights_hash() != self.content:
            raise ValueError(
                "`path` must hold the language model that the transform was fitted with. "
                f"Received: {self.model.path!r}, whose weights are others now"
            )

    def in_graph(self) -> Any:
        """A `tf.Module` from a tensor of strings to what `encode` gives."""
        if self.model.is_frozen:
            self._check_folder()
        return _in_graph(self)

    # Kept in files.

    def identity(self) -> dict[str, Any]:
        """Plain data that differs where `encode` gives other arrays."""
        about = {**self.model.settings(), "tokenizer": self.tokenizer.identity(), "weights": self.content}
        return about if self.model.is_frozen else {k: about[k] for k in ("max_length", "tokenizer")}

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        """Writes the tokenizer and, of a frozen model that is kept as a copy, its weights."""
        copied: list[str] = []
        if self.model.is_frozen and self.model.keep == "copy":
            self._check_folder()
            opened = self.model.folder()
            for path in (opened.path / CONFIG, *opened.weight_files, *opened.tokenizer_files, *opened.index_files):
                shutil.copyfile(path, folder / f"{stem}.{path.name}")
                copied.append(path.name)
        tokenizer = self.tokenizer.write(folder, stem)
        config = {"model": self.model.get_config(), "content": self.content, "tokenizer": tokenizer}
        return {**config, "copied": copied, "stem": stem}

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> LanguageFeature:
        """What `write` wrote. A copied model is put into the user's cache, where its content names it."""
        model = LanguageModel(**config["model"])
        file = name_within(folder, config["tokenizer"]["file"], _WHAT)
        tokenizer = _tokenizers.read(config["tokenizer"], file)
        if config["copied"]:
            model = dataclasses.replace(model, path=str(_unpacked(folder, config)))
        return cls(model, tokenizer, config["content"])


TEXT_MODELS.add("language_model", (LanguageModel, LanguageFeature), LanguageModel)


def _unpacked(folder: Path, config: dict[str, Any]) -> Path:
    place = default_cache().parent / "models" / str(config["content"])[:32]
    if not (place / CONFIG).is_file() or not any(place.glob("*.safetensors")):
        with whole_folder(place) as part:
            for name in config["copied"]:
                copied = name_within(folder, f"{config['stem']}.{name}", _WHAT)
                shutil.copyfile(copied, name_within(part, name, _WHAT))
    return place


def _in_graph(feature: LanguageFeature) -> Any:
    import tensorflow as tf

    length = feature.model.max_length
    tokenizer = feature.tokenizer.in_graph()
    layer = feature.model.encoder().layer if feature.model.is_frozen else None

    class TextGraph(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="language_model")
            # Tables of the tokenizer and weights, so that an export holds both, once.
            self.tokenizer = tokenizer
            self.network = [] if layer is None else [v.value for v in layer.variables]

        def __call__(self, texts: Any) -> Any:
            if layer is None:
                return tokenizer.ragged(texts, length).to_tensor(0, shape=(None, length))
            distinct, rows = tf.unique(texts)
            ids = tokenizer.ragged(distinct, length).to_tensor(0)
            # A batch of missing texts has no token at all.
            ids = tf.pad(ids, [[0, 0], [0, tf.cast(tf.shape(ids)[1] == 0, tf.int32)]])
            vectors = tf.cast(layer(ids, training=False), tf.float32)
            return tf.ensure_shape(tf.gather(vectors, rows), (None, feature.model.width))

    return TextGraph()
