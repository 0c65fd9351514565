"""A pretrained language model in a folder of Hugging Face layout: what it is, its tokenizer and its tensors.

Nothing here imports TensorFlow. Weights are read from safetensors files alone: a pickle can run any code when it is
opened, so a folder that has nothing else is refused by name and its pickles are not touched.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo._files import DamagedFile, intact, name_within, read_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
VOCABULARY, TOKENIZER, TOKENIZER_CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
_WHAT = "a language model"
_PICKLES = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def open_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """What the folder holds, once its configuration is understood and its weights are there.

    Raises:
        FileNotFoundError: The folder, its configuration, vocabulary or weights are not there.
        DamagedFile: A file is not what it should be.
        ValueError: A model of an unknown type, or weights as a pickle only.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`path` must be a folder with a language model: {CONFIG}, {VOCABULARY} or {TOKENIZER}, and {WEIGHTS}. "
            f"Received: path={str(path)!r}, which is no folder"
        )
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"`path` must hold {CONFIG}. Received: path={str(path)!r}, without {CONFIG}")
    _refuse_pickles(folder)
    config = read_json(folder / CONFIG, _WHAT, {"model_type": str})
    return ModelFolder(folder.absolute(), architecture_of(config, folder / CONFIG))


def _refuse_pickles(folder: Path) -> None:
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise ValueError(
            f"`path` must hold {WEIGHTS}. Received: path={str(folder)!r} with {', '.join(pickles[:3])} alone. Such a "
            "file can run any code when it is opened, so it is not. Save the model again with safe_serialization=True."
        )
    raise FileNotFoundError(f"`path` must hold {WEIGHTS} or {INDEX}. Received: path={str(folder)!r}, without either")


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A folder whose configuration has been read.

    Args:
        path: Where it is.
        architecture: Plain data from which the network is built, see `architecture_of`.
    """

    path: Path
    architecture: dict[str, Any] = dataclasses.field(hash=False)

    @property
    def weight_files(self) -> list[Path]:
        """The files that hold tensors."""
        if (self.path / WEIGHTS).is_file():
            return [self.path / WEIGHTS]
        return sorted(set(self._shards().values()))

    def _shards(self) -> dict[str, Path]:
        index = read_json(self.path / INDEX, _WHAT, {"weight_map": dict})
        return {name: name_within(self.path, file, _WHAT) for name, file in index["weight_map"].items()}

    @property
    def tokenizer_files(self) -> list[Path]:
        names = (VOCABULARY, TOKENIZER, TOKENIZER_CONFIG)
        return [self.path / name for name in names if (self.path / name).is_file()]

    @property
    def index_files(self) -> list[Path]:
        return [] if (self.path / WEIGHTS).is_file() else [self.path / INDEX]

    def tensors(self) -> Tensors:
        """The tensors of all files, read one by one."""
        return Tensors(self.weight_files)

    def weights_hash(self) -> str:
        """A hash of the configuration and of every byte of the weights."""
        digest = hashlib.sha256(json.dumps(self.architecture, sort_keys=True).encode())
        for path in self.weight_files:
            digest.update(_hash_of(path).encode())
        return digest.hexdigest()


def _hash_of(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"`path` must hold all files of the language model. Received: without {str(path)!r}")
    status = path.stat()
    return _hash_of_content(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_of_content(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The configuration.


def architecture_of(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """The network that a config.json describes, as plain data.

    Raises:
        ValueError: It is none that is known, or has an option that the network here has not.
    """
    kind = config["model_type"]
    if kind not in _READERS:
        raise ValueError(
            f"`model_type` must be one of {list(_READERS)}. Received: model_type={kind!r} in {str(path)!r}"
        )
    with intact(path, _WHAT):
        found = _READERS[kind](config)
        numbers = {name: value for name, value in found.items() if name not in ("family", "activation", "rope", "tied")}
        for name, value in numbers.items():
            if name != "epsilon" and (type(value) is not int or value < 1):
                raise ValueError(f"its {name} is {value!r}")
        if found["width"] % found["heads"]:
            raise ValueError(f"its {found['heads']} heads do not divide its width {found['width']}")
    _refuse_unknown_options(config, found, path)
    return found


def _bert(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "family": "bert",
        "vocabulary": config["vocab_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "width": config["hidden_size"],
        "inner_width": config["intermediate_size"],
        "positions": config["max_position_embeddings"],
        "segments": config.get("type_vocab_size", 2),
        "activation": _ACTIVATIONS.get(config.get("hidden_act", "gelu")),
        "epsilon": float(config.get("layer_norm_eps", 1e-12)),
    }


def _roberta(config: dict[str, Any]) -> dict[str, Any]:
    """A BERT whose positions are counted from behind that of padding, and whose tokens are byte pairs."""
    offset = config.get("pad_token_id", 1) + 1
    positions = config["max_position_embeddings"] - offset
    return {**_bert(config), "family": "roberta", "positions": positions, "offset": offset}


def _llama(config: dict[str, Any]) -> dict[str, Any]:
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = scaling.get("rope_theta", config.get("rope_theta", 10000.0))
    return {
        "family": "llama",
        "vocabulary": config["vocab_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "key_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "width": config["hidden_size"],
        "inner_width": config["intermediate_size"],
        "positions": config["max_position_embeddings"],
        "activation": _ACTIVATIONS.get(config.get("hidden_act", "silu")),
        "epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope": {"theta": float(theta), **_rope_scaling(scaling)},
        "tied": bool(config.get("tie_word_embeddings", False)),
    }


def _rope_scaling(scaling: dict[str, Any]) -> dict[str, Any]:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return {}
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        return {"llama3": [float(scaling[name]) for name in names]}
    # keras-hub takes 'linear' and computes nothing of it.
    raise ValueError(f"its rope_type is {kind!r}, and 'default' and 'llama3' are known")


_READERS = {"bert": _bert, "roberta": _roberta, "xlm-roberta": _roberta, "llama": _llama}


def _refuse_unknown_options(config: dict[str, Any], found: dict[str, Any], path: Path) -> None:
    """What the networks of keras-hub cannot do is not left out in silence."""
    wanted = "silu" if found["family"] == "llama" else found["activation"]
    odd = {
        "hidden_act": found["activation"] is None or found["activation"] != wanted,
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "head_dim": config.get("head_dim") not in (None, found["width"] // found["heads"]),
        "position_embedding_type": config.get("position_embedding_type", "absolute") not in (None, "absolute"),
        "is_decoder": found["family"] != "llama" and bool(config.get("is_decoder")),
    }
    for name, is_odd in odd.items():
        if is_odd:
            raise ValueError(
                f"`{name}` must be one that a {found['family']} model here has. "
                f"Received: {name}={config.get(name)!r} in {str(path)!r}"
            )


# The tensors.


class Tensors:
    """The tensors of safetensors files, by name, read as float32.

    Args:
        files: The files.

    Raises:
        DamagedFile: One of them is cut short, or no such file.
    """

    def __init__(self, files: list[Path]) -> None:
        try:
            from safetensors import safe_open
        except ImportError as error:
            raise ImportError(f"`LanguageModel` needs the extra: pip install mtl-zoo[text] ({error})") from error
        self.files: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(f"`path` must hold all weights. Received: without {str(path)!r}")
            try:
                opened = safe_open(path, "np")
                names = list(opened.keys())
            except Exception as error:  # its own type of error is no ValueError
                raise _damaged(path, error) from error
            self.files |= dict.fromkeys(names, opened)
            self._paths |= dict.fromkeys(names, path)
        self.shown = ", ".join(repr(str(path)) for path in files)

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor of that name and shape.

        Raises:
            DamagedFile: It is not there, or has another shape.
        """
        if name not in self.files:
            raise DamagedFile(f"The weights must hold the tensor {name!r}. Received: {self.shown}, without it")
        path = self._paths[name]
        try:
            piece = self.files[name].get_slice(name)
            found = tuple(piece.get_shape())
            if found != shape:
                raise DamagedFile(
                    f"The tensor {name!r} must have the shape {shape}, as {CONFIG} says. Received: shape {found} in "
                    f"{str(path)!r}"
                )
            return np.asarray(piece[...] if shape else self.files[name].get_tensor(name)).astype(np.float32)
        except DamagedFile:
            raise
        except Exception as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DamagedFile:
    return DamagedFile(
        f"A file of {_WHAT} must be as it was written. Received: {str(path)!r}, which is damaged: {str(error)[:300]}"
    )
