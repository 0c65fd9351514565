"""What an export format is: a way to write a model's scoring into a folder, and to read it back."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from mtl_zoo import _backend
from mtl_zoo._registry import Registry
from mtl_zoo.serving.scoring import Scoring

Read = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

# What one protocol buffer, and one flat buffer, can hold.
_LARGEST = 2**31


class Format:
    """A form in which a model runs without this package.

    A format is a class in a file of its own, under `@register_format("<name>")`. One that has options is a frozen
    dataclass of them; `export` hands them over.

    Attributes:
        name: Its name, which `export` takes.
        marker: The file by which a folder of this format is known.
        what: What it is called in errors: `"a SavedModel"`.
        tolerance: The largest difference from `predict`'s scores that its own arithmetic may bring.

    Example:

    >>> from mtl_zoo.serving import FORMATS
    >>> FORMATS["saved_model"].what
    'a SavedModel'
    """

    name: ClassVar[str]
    marker: ClassVar[str]
    what: ClassVar[str]
    tolerance: float = 1e-5

    def check(self, scoring: Scoring) -> None:
        """Refuses, before anything is written, what this format cannot hold, or what it needs and is not installed."""

    def write(self, scoring: Scoring, folder: Path) -> dict[str, str]:
        """Writes the model into an empty folder.

        Returns:
            The name under which what was written takes each column.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `write(scoring, folder)`.")

    def read(self, folder: Path) -> Read:
        """What was written, as a function from arrays by the columns' own names to scores by output."""
        raise NotImplementedError(f"{type(self).__name__} must define `read(folder)`.")

    @classmethod
    def examples(cls) -> Sequence[Format]:
        """The format with each of its options: what tests try. By default the one without any."""
        return (cls(),)

    # What several formats refuse.

    def need_tensorflow(self) -> None:
        """Refuses another backend than TensorFlow, whose graphs are converted."""
        if not _backend.is_tensorflow():
            backend = keras.backend.backend()
            raise ValueError(
                f"`format` {self.name!r} needs the TensorFlow backend. Received: KERAS_BACKEND={backend!r}"
            )

    def need_modules(self, extra: str, *modules: str) -> None:
        """Refuses to go on where a package of an extra is not installed."""
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            raise ImportError(
                f"`format` {self.name!r} needs the extra: pip install mtl-zoo[{extra}]. Not installed: {missing}"
            )

    def refuse_raw(self, scoring: Scoring, why: str) -> None:
        """Refuses raw columns, and inputs that are strings, which another runtime cannot encode."""
        if scoring.raw:
            raise ValueError(
                f"`raw` must be False for format {self.name!r}, {why}. Encode rows with the model's transform "
                "(`transform.encode(table)`), or export a SavedModel. Received: raw=True"
            )
        texts = sorted(name for name, column in scoring.columns.items() if column.dtype == "string")
        if texts:
            raise ValueError(
                f"`model` must not take strings for format {self.name!r}, {why}. Received: the inputs {texts}. Use a "
                "kind of feature that encodes them in its transform (`Text`, `Categorical`), or export a SavedModel"
            )

    def refuse_large(self, scoring: Scoring) -> None:
        """Refuses more weights than one file of these formats can hold."""
        size = _backend.bytes_of(scoring.model.weights)
        if size >= _LARGEST:
            raise ValueError(
                f"`model` must have less than 2 GiB of weights for format {self.name!r}. Received: "
                f"{size / 2**30:.1f} GiB. `quantize(model)` makes tables a quarter as large"
            )


FORMATS: Registry[type[Format]] = Registry("format")


def register_format(name: str) -> Callable[[type[Format]], type[Format]]:
    """Decorator of a format's class: `export(model, path, format=name)` knows it from then on.

    Example:

    >>> from mtl_zoo.serving import Format, register_format
    >>> @register_format("saved_model")
    ... class Mine(Format):
    ...     pass
    Traceback (most recent call last):
    ValueError: `name` must not be taken. Received: 'saved_model', the name of SavedModel
    """
    return FORMATS.register(name, keep_as="name")


def make_format(name: str, options: Mapping[str, Any]) -> Format:
    """A format by its name, with its options.

    Raises:
        ValueError: An unknown format, or an option that it has not.

    Example:

    >>> from mtl_zoo.serving.formats import make_format
    >>> make_format("litert", {"weights": "int8"}).weights
    'int8'
    """
    cls = FORMATS[name]
    known: list[str] = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"`options` of format {name!r} must be among its own. Received unknown: {unknown}. Expected: {known}"
        )
    return cls(**options)
