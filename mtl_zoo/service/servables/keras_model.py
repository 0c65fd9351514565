"""A model of the zoo, as `model.save` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo.service.servables._base import Servable, register_servable
from mtl_zoo.serving.scoring import Scoring


@register_servable("keras_model")
class KerasModel(Servable):
    """A `.keras` file. It takes the columns of a table if the model has a transform, else the model's own inputs.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> from mtl_zoo.service.servables import KerasModel
    >>> sorted(KerasModel(model).columns)
    ['city']
    """

    what = "one .keras file of a model of the zoo"

    def __init__(self, model: Any):
        if not _backend.is_tensorflow():
            backend = keras.backend.backend()
            raise ValueError(f"A .keras file is served on the TensorFlow backend. Received: KERAS_BACKEND={backend!r}")
        self._scoring = Scoring(model, raw=getattr(model, "transform", None) is not None)
        self.columns, self.units = self._scoring.columns, self._scoring.units
        self._compiled = self._scoring.compiled()

    @classmethod
    def is_in(cls, path: Path) -> bool:
        return bool(_files(path))

    @classmethod
    def load(cls, path: Path) -> KerasModel:
        files = _files(path)
        if len(files) > 1:
            names = [file.name for file in files]
            raise ValueError(f"A version's folder must hold one .keras file. Received: {names}")
        model = keras.saving.load_model(files[0], compile=False)
        if not hasattr(model, "outputs_info"):
            raise ValueError(f"A .keras file must hold a model of the zoo. Received: a {type(model).__name__}")
        return cls(model)

    def score(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in self._compiled(arrays).items()}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".keras" else []
    # A writer's part has a name that starts with a dot.
    return sorted(file for file in path.glob("*.keras") if file.is_file() and not file.name.startswith("."))
