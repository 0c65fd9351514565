"""What a version's folder may hold: a kind of servable is one file, which knows it and loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from mtl_zoo._registry import Registry
from mtl_zoo.service.errors import RequestError
from mtl_zoo.serving.columns import Column


class Servable:
    """A loaded version of a model.

    A kind is a class in a file of its own, under `@register_servable("<kind>")`.

    Attributes:
        kind: Its name.
        what: What it is called in errors.
        columns: What it is scored with. None of them if it only recommends.
        units: How many scores a row has, by output.
        types: The type of the scores, by output; float32 where it is not said.

    Example:

    >>> from mtl_zoo.service.servables import KerasModel, Servable
    >>> issubclass(KerasModel, Servable), KerasModel.kind
    (True, 'keras_model')
    """

    kind: ClassVar[str]
    what: ClassVar[str]
    columns: dict[str, Column]
    units: dict[str, int]
    types: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def is_in(cls, path: Path) -> bool:
        """Whether a folder (or file) holds one."""
        raise NotImplementedError(f"{cls.__name__} must define `is_in(path)`.")

    @classmethod
    def load(cls, path: Path) -> Servable:
        """What the folder holds."""
        raise NotImplementedError(f"{cls.__name__} must define `load(path)`.")

    def score(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores (rows, units) by output, of typed arrays by column. One thread calls it at a time."""
        raise NotImplementedError(f"{type(self).__name__} must define `score(arrays)`.")

    def asked(self, given: Mapping[str, Any]) -> Any:
        """What the body of a request to `/recommend` asks, checked.

        Raises:
            RequestError: 400, which names the field; 404 if this servable recommends nothing.
        """
        raise RequestError(404, "The version that is served gives scores, and recommends nothing.", "no_recommender")

    def recommend(self, asked: Any, is_late: Callable[[], bool]) -> dict[str, Any]:
        """The answer to what `asked` gave. One thread calls it at a time.

        Args:
            asked: What `asked` gave.
            is_late: Whether nobody waits for the answer any more, so that it may be given up.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `recommend(asked, is_late)`.")

    def warm_up(self) -> None:
        """Pays for what the first calls pay for, and refuses a model that gives no scores.

        Raises:
            ValueError: Scores are missing or not finite.
        """
        for rows in (1, 3):
            scores = self.score({name: column.example(rows) for name, column in self.columns.items()})
            for name, units in self.units.items():
                values = scores.get(name)
                if values is None or values.shape[0] != rows or not np.isfinite(values).all():
                    raise ValueError(
                        f"A version must give {rows} finite scores of {units} units for {name!r} in its warm-up. "
                        f"Received: {'none' if values is None else values.tolist()}"
                    )


SERVABLES: Registry[type[Servable]] = Registry("servable")


def register_servable(kind: str) -> Callable[[type[Servable]], type[Servable]]:
    """Decorator of a servable's class: `mtl-zoo serve` knows the folders that it says are its own.

    Example:

    >>> from mtl_zoo.service import SERVABLES
    >>> SERVABLES.names()
    ['keras_model', 'recommender', 'saved_model']
    """
    return SERVABLES.register(kind, keep_as="kind")


def kind_in(path: Path) -> type[Servable] | None:
    """The kind of servable that a folder holds; of those that say so the last one, since it may extend another.

    Example:

    >>> from pathlib import Path
    >>> from mtl_zoo.service.servables import kind_in
    >>> kind_in(Path("a_folder_that_is_not_there")) is None
    True
    """
    return next((kind for kind in reversed(SERVABLES.in_order()) if kind.is_in(path)), None)


def load_servable(path: Path) -> Servable:
    """What a version's folder holds, loaded and warmed up.

    Raises:
        ValueError: It holds nothing that is known, or what does not give scores.

    Example:

    >>> import os
    >>> from pathlib import Path
    >>> from mtl_zoo.service.servables import load_servable
    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> os.makedirs("shop/1")
    >>> model.save("shop/1/model.keras")
    >>> load_servable(Path("shop/1")).units
    {'click': 1}
    """
    kind = kind_in(path)
    if kind is None:
        whats = ", ".join(known.what for known in SERVABLES.in_order())
        raise ValueError(f"A version's folder must hold one of: {whats}. Received: {path.name!r}")
    made = kind.load(path)
    made.warm_up()
    return made
