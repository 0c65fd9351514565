"""Numbers of one encoding, which one layer encodes together: one for each of many columns would be slow to trace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from keras import ops

from mtl_zoo.features.requests import Number
from mtl_zoo.layers._places import Place


class NumberGroup:
    """Numbers that are encoded alike; those without further inputs come first."""

    def __init__(self, places: Iterable[Place]):
        self.places = sorted(places, key=lambda place: len(place.inputs) > 1)
        self.alone = [place for place in self.places if len(place.inputs) == 1]
        self.name = self.places[0].request.group

    def within(self, names: Collection[str]) -> NumberGroup | None:
        """Those of them that are asked for: all or none where they are encoded together."""
        places = [place for place in self.places if place.name in names]
        return NumberGroup(places) if places else None

    def make(self, dtype: Any) -> Any:
        """The layer that encodes them, from (batch, numbers) to (batch, numbers, width)."""
        requests = [place.request for place in self.places]
        return requests[0].make(requests, name=self.name, dtype=dtype)

    @property
    def shape(self) -> tuple[None, int]:
        return (None, len(self.places))

    def call(self, layer: Any, inputs: Mapping[str, Any], dtype: str) -> tuple[Any, dict[str, Any]]:
        """The block (batch, numbers, width) of those without further inputs, or None, and the vectors of the others."""
        x = ops.stack([ops.cast(inputs[place.inputs[0]], dtype) for place in self.places], axis=1)
        vectors = x[..., None] if layer is None else layer(x)
        count = len(self.alone)
        others = {}
        for i, place in enumerate(self.places[count:], start=count):
            beside = [ops.cast(inputs[name], dtype)[:, None] for name in place.inputs[1:]]
            others[place.name] = ops.concatenate([vectors[:, i], *beside], axis=-1)
        return (vectors if count == len(self.places) else vectors[:, :count]) if count else None, others


def group_numbers(places: Iterable[Place]) -> list[NumberGroup]:
    """The numbers of a model by how they are encoded."""
    groups: dict[str, list[Place]] = {}
    for place in places:
        if isinstance(place.request, Number):
            groups.setdefault(place.request.group, []).append(place)
    return [NumberGroup(group) for group in groups.values()]
