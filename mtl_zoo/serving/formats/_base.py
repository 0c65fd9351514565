"""What an export format is: a way to write a model's scoring into a folder, and to read it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.serving.scoring import Scoring

Read = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Format:
    """A form in which a model runs without this package.

    A format is a class in a file of its own, under `@register_format("<name>")`.

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
    tolerance: ClassVar[float] = 1e-5

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

    def register(cls: type[Format]) -> type[Format]:
        FORMATS.add(name, cls)
        cls.name = name
        return cls

    return register
