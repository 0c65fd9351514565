"""What features ask of an embedding, and the fused tables that hold their rows."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from mtl_zoo.features.base import Feature
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID, Encoder, Rows


class Place(NamedTuple):
    """What a feature asks for, and the inputs that it is fed by."""

    name: str
    request: Any
    shapes: dict[str, tuple[int | None, ...]]
    says_missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, feature: Feature) -> Place:
        specs = feature.input_specs()
        shapes = {name: (None, *spec.shape) for name, spec in specs.items()}
        return cls(
            feature.name, feature.embed(), shapes, frozenset(n for n, spec in specs.items() if spec.says_missing)
        )

    @property
    def inputs(self) -> list[str]:
        return list(self.shapes)

    @property
    def is_list(self) -> bool:
        return len(next(iter(self.shapes.values()))) > 1

    @property
    def is_unpooled(self) -> bool:
        return self.is_list and isinstance(self.request, Rows) and self.request.pooling is self.encoder is None

    @property
    def encoder(self) -> Any:
        """What turns its input, or the rows of its list, into a vector, if anything does."""
        if isinstance(self.request, Encoder):
            return self.request
        return self.request.encoder if isinstance(self.request, Rows) else None

    @property
    def encoded_shape(self) -> Any:
        """Shape of what its encoder takes."""
        if isinstance(self.request, Rows):
            return (*self.shapes[self.inputs[0]], self.request.dim)
        return self.of_inputs(self.shapes)

    def of_inputs(self, by_name: Mapping[str, Any]) -> Any:
        """What an encoder takes: its one input, or a dict of them."""
        own = {name: by_name[name] for name in self.shapes}
        return own if len(own) > 1 else next(iter(own.values()))

    def ids_and_mask(self, inputs: Mapping[str, Any], offset: int, seeds: Any) -> tuple[Any, Any]:
        """Its ids as rows of a fused table, and which of them are no padding; `seeds` draw the unknown ones."""
        ids = ops.cast(inputs[self.inputs[0]], "int32")
        if seeds is not None and self.request.unknown_rate:
            ids = with_unknowns(ids, self.request.unknown_rate, seeds)
        return within(ids, self.request.num_ids) + offset, ops.not_equal(ids, MISSING_ID)

    def weights(self, inputs: Mapping[str, Any]) -> Any:
        """The weights of its list, or None."""
        return inputs[self.inputs[1]] if self.request.weights else None


def check_queries(places: Sequence[Place]) -> None:
    """Refuses an encoder that asks for a vector which there is not."""
    by_name = {place.name: place for place in places}
    for place in places:
        query = place.encoder.query if place.encoder else None
        if query is None:
            continue
        asked = by_name.get(query)
        if asked is None or asked.is_unpooled or (asked.encoder and asked.encoder.query):
            usable = [p.name for p in places if not p.is_unpooled and not (p.encoder and p.encoder.query)]
            raise ValueError(
                f"`query` of feature {place.name!r} must name a feature of the same embedding that is one vector and "
                f"asks for no other. Received: query={query!r}. Features: {usable}"
            )


def call_encoder(layer: Any, rows: Any, mask: Any = None, query: Any = None) -> Any:
    """The vector of a layer: `mask` is handed over if its `call` takes one, `query` if there is one."""
    extra = {} if query is None else {"query": query}
    if mask is not None and "mask" in inspect.signature(layer.call).parameters:
        extra["mask"] = mask
    return layer(rows, **extra)


class TableGroup:
    """The tables of one width, one above the other in one fused table."""

    def __init__(self, dim: int, trainable: bool):
        self.dim, self.trainable = dim, trainable
        self.places: list[Place] = []
        self.offsets: dict[str, int] = {}
        self.num_rows = 0
        # First row and number of rows of each table.
        self.tables: dict[str, tuple[int, int]] = {}

    @property
    def name(self) -> str:
        return f"table_{self.dim}" if self.trainable else f"frozen_table_{self.dim}"

    def add(self, place: Place) -> None:
        table = place.request.table
        if table not in self.tables:
            self.tables[table] = (self.num_rows, place.request.num_ids)
            self.num_rows += place.request.num_ids
        self.places.append(place)
        self.offsets[place.name] = self.tables[table][0]

    def pretrained(self) -> list[tuple[int, np.ndarray]]:
        """(first row, matrix) of each matrix that rows start from."""
        given = [place for place in self.places if place.request.pretrained is not None]
        return [(self.offsets[place.name] + FIRST_ID, place.request.pretrained) for place in given]


def group_tables(places: Iterable[Place]) -> list[TableGroup]:
    groups: dict[tuple[int, bool], TableGroup] = {}
    for place in places:
        key = (place.request.dim, place.request.trainable)
        groups.setdefault(key, TableGroup(*key)).add(place)
    return list(groups.values())


def within(ids: Any, sizes: Any) -> Any:
    """Ids of features as rows of their tables; an id outside its own would read another feature's row."""
    known = ops.logical_and(ids >= 0, ids < sizes)
    return ops.where(known, ids, UNKNOWN_ID)


def with_unknowns(ids: Any, rates: Any, seeds: Any) -> Any:
    """Each id of a known value is unknown with the probability in `rates`, which is broadcast to `ids`."""
    drawn = ops.less(keras.random.uniform(ops.shape(ids), seed=seeds), rates)
    return ops.where(ops.logical_and(drawn, ids >= FIRST_ID), UNKNOWN_ID, ids)


def as_missing(x: Any, is_gone: Any, says_missing: bool) -> Any:
    """An input with missing values in the rows of `is_gone`, (batch,): zeros, or ones if it says what is missing."""
    missing = ops.ones_like(x) if says_missing else ops.zeros_like(x)
    return ops.where(ops.reshape(is_gone, (-1, *(1 for _ in x.shape[1:]))), missing, x)


def largest(rows: Any, real: Any) -> Any:
    # An empty list pools to zeros, as with the others.
    real = real[..., None]
    lowest = ops.where(real, rows, ops.full_like(rows, -1e9))
    return ops.where(ops.any(real, axis=1), ops.max(lowest, axis=1), 0.0)
