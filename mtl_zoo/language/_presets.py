"""Names of published models as folders: the one place that downloads, and only for a name that asks for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mtl_zoo._files import whole_folder
from mtl_zoo.language import _backbones
from mtl_zoo.language._folder import CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, WEIGHTS
from mtl_zoo.language._vectors import default_cache

HUGGING_FACE, KAGGLE = "hf://", "kaggle://"
# What is fetched; a pickle is not among it.
_FILES = (CONFIG, WEIGHTS, INDEX, "*.safetensors", VOCABULARY, TOKENIZER, TOKENIZER_CONFIG)


def resolve(path: str) -> Path:
    """The folder that a path or name stands for."""
    if path.startswith(HUGGING_FACE):
        return _from_hugging_face(path.removeprefix(HUGGING_FACE))
    if path.startswith(KAGGLE) or _is_name_of_keras(path):
        return _from_keras(path)
    return Path(path).expanduser()


def _from_hugging_face(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"`path` with 'hf://' needs the package huggingface_hub ({error})") from error
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))


def _is_name_of_keras(path: str) -> bool:
    """Whether it is no folder and no path, but the name of a preset."""
    if Path(path).expanduser().exists() or "/" in path or "\\" in path or "." in path:
        return False
    return path in _backbones.hub().models.BertBackbone.presets


def _from_keras(name: str) -> Path:
    """A preset of keras-hub, written once in the layout of Hugging Face."""
    folder = default_cache().parent / "models" / hashlib.sha256(name.encode()).hexdigest()[:32]
    if not (folder / CONFIG).is_file():
        hub = _backbones.hub()
        backbone = hub.models.Backbone.from_preset(name)
        if not isinstance(backbone, hub.models.BertBackbone):
            raise ValueError(
                f"`path` must name a preset of the BERT family. Received: path={name!r}, a {type(backbone).__name__}"
            )
        tokenizer = hub.models.Tokenizer.from_preset(name)
        with whole_folder(folder) as part:
            write_bert(part, backbone, tokenizer.get_vocabulary(), tokenizer.lowercase)
    return folder


def write_bert(folder: Path, backbone: Any, vocabulary: list[str], lowercase: bool, **config: Any) -> None:
    """Writes a `BertBackbone` of keras-hub and its vocabulary in the layout of Hugging Face.

    Args:
        folder: Where to.
        backbone: With its weights.
        vocabulary: Word pieces in the order of their ids.
        lowercase: Whether texts are lower-cased first.
        config: Entries of config.json that differ from what keras-hub computes.
    """
    from safetensors.numpy import save_file

    entries = {
        "model_type": "bert",
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "max_position_embeddings": backbone.max_sequence_length,
        "type_vocab_size": backbone.num_segments,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-12,
        **config,
    }
    tensors = {w.name: w.to_tensor() for w in _backbones.weights(backbone, {"family": "bert"})}
    save_file(tensors, folder / WEIGHTS)
    (folder / VOCABULARY).write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / TOKENIZER_CONFIG).write_text(json.dumps({"do_lower_case": lowercase}), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(entries, indent=1), encoding="utf-8")
