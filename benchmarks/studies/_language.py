"""Where the studies find pretrained language models, which are no part of the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = "MTL_ZOO_LANGUAGE_MODELS"
MINILM = "all-MiniLM-L6-v2"


def has(name: str) -> bool:
    """Whether the folder that `MTL_ZOO_LANGUAGE_MODELS` names holds this model."""
    return bool(os.environ.get(FOLDER)) and Path(os.environ[FOLDER], name, "config.json").exists()


def model(name: str, **arguments: Any) -> Any:
    """The `LanguageModel` of this name."""
    from mtl_zoo import LanguageModel

    if not has(name):
        raise ValueError(f"`{FOLDER}` must name a folder that holds {name!r}, with config.json and model.safetensors.")
    return LanguageModel(str(Path(os.environ[FOLDER], name)), **arguments)
