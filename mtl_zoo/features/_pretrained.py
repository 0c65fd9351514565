"""Pretrained models as encoders of texts: what a feature asks of one, and what a transform keeps of it.

The kinds of pretrained models are entered by the rooms that have them; a feature knows this protocol alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.features._states import State, register_state


class TextModel(Protocol):
    """A specification of a pretrained model, plain data."""

    row_shape: tuple[int, ...]
    row_dtype: str
    rule: str

    def feature_encoder(self) -> TextModelReading:
        """What reads texts for it, once its files are opened."""

    def feature_layer(self, units: int | None = None) -> Any:
        """A Keras layer from the feature's input to (batch, units)."""

    def get_config(self) -> dict[str, Any]:
        """Plain data that `from_config` of its class makes it of."""


class TextModelReading(Protocol):
    """What turns texts into arrays for a pretrained model."""

    model: Any

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, *model.row_shape) of `model.row_dtype`; '' is a missing text."""

    def in_graph(self) -> Any:
        """A `tf.Module` from a tensor of strings to what `encode` gives."""

    def identity(self) -> dict[str, Any]:
        """Plain data that differs where `encode` gives other arrays."""

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        """Writes it, and gives plain data from which `read` of its class makes it."""


# By name: the class of the specification, and that of its reading.
TEXT_MODELS: Registry[tuple[Any, Any]] = Registry("text model")


def name_of(model: Any) -> str | None:
    """The name under which the class of a pretrained model is entered; None if it is none."""
    return next((name for name in TEXT_MODELS if type(model) is TEXT_MODELS[name][0]), None)


def model_from_config(config: dict[str, Any]) -> Any:
    """The specification that `model_config` described."""
    return TEXT_MODELS[config["pretrained"]][0].from_config(config["config"])


def model_config(model: Any) -> dict[str, Any]:
    """Plain data of a specification."""
    return {"pretrained": name_of(model), "config": model.get_config()}


@register_state("pretrained")
@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained(State):
    """What a transform keeps of a pretrained model: how it reads texts."""

    reading: Any

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return {"kind": name_of(self.reading.model), "reading": self.reading.write(folder, stem)}

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> Pretrained:
        return cls(TEXT_MODELS[config["kind"]][1].read(folder, config["reading"]))

    def identity(self) -> dict[str, Any]:
        return self.reading.identity()

    def in_graph(self) -> Any:
        return self.reading.in_graph()
