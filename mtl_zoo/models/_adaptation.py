"""Which weights of a transferred model train: frozen layers, and low-rank updates in place of their kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What does not train of a model. Saved with its config.

    Args:
        frozen: Names of its layers that are frozen.
        rank: Of the low-rank updates that those of them train that can; None: no updates.
        alpha: The updates are scaled by `alpha / rank`.
    """

    frozen: tuple[str, ...] = ()
    rank: int | None = None
    alpha: float = 1.0

    def __bool__(self) -> bool:
        return bool(self.frozen)

    def get_config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "frozen": list(self.frozen)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Adaptation:
        return cls() if config is None else cls(tuple(config["frozen"]), config["rank"], config["alpha"])

    def apply(self, model: Any) -> int:
        """Freezes the layers of a model that was just made; how many kernels have updates."""
        updates = 0
        for name in self.frozen:
            layer = model.get_layer(name)
            adapt = getattr(layer, "adapt", None)
            if self.rank is None or not callable(adapt):
                layer.trainable = False
            else:
                updates += adapt(self.rank, self.alpha)
        return updates
