from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.features.base import Feature, as_features, features_from_config, features_to_config, require_fitted
from mtl_zoo.features.requests import FIRST_ID, MISSING_ID, UNKNOWN_ID, Encoder, Number, Rows
from mtl_zoo.layers._tables import InitialRows, add_table, shard_bounds


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FeatureEmbedding(keras.layers.Layer):
    """Every feature as a vector, by name.

    Categoricals, sequences and bucketed numbers look up rows of an embedding table; all tables of one width are one
    fused table, each at its offset. Multi-hot features are summed and sequences pooled over their ids other than 0; a
    sequence with `pooling=None` stays a sequence, with zeros where it is padded. Numbers pass as (batch, 1), or
    (batch, 2) with an indicator of missing ones; an `Encoded` feature goes through a copy of its layer, which starts
    from the layer's weights if it has any. An id outside its table counts as unknown (id 1).

    In training `l2` adds a penalty on the vectors `v` that a batch looks up,

        l2 * sum_v ||v||^2 / (rows of the global batch)

    before they are pooled. A row that is looked up twice counts twice, padding does not count, and a single value that
    is missing (id 0) counts, since it has a vector too. Frozen tables do not count.

    Args:
        features: Feature specs with known sizes.
        initializer: Of the tables: what Keras' initializer gives for a whole table, drawn in chunks of 4 MB. Rows of a
            `pretrained` matrix start from it instead.
        shards: Each fused table is split by row into this many weights of nearly equal size; the numbers are those of
            one weight. Each ends in a spare row of zeros that no id reads.
        l2: Factor of the penalty. Default: 0.0.
        joined: Give one tensor, the vectors side by side, in place of a dict: taking the looked-up rows apart and
            putting them together again costs more than looking them up.

    Raises:
        ValueError: Sizes that are not known; `shards` below 1; `l2` below 0.

    Input: dict of feature name -> tensor, as `make_inputs` gives. Output: dict of feature name -> (batch, width), or
    (batch, length, width) with `pooling=None`. `concatenate` joins it to one (batch, sum of widths) tensor, in the
    order of `features`, which is the output with `joined=True`.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import Categorical, Numeric
    >>> from mtl_zoo.layers import FeatureEmbedding
    >>> embedding = FeatureEmbedding([Categorical("city", size=3, dim=4), Numeric("age")])
    >>> vectors = embedding({"city": np.array([2, 0]), "age": np.array([0.5, -1.0], "float32")})
    >>> {name: tuple(x.shape) for name, x in vectors.items()}
    {'city': (2, 4), 'age': (2, 1)}
    """

    def __init__(
        self,
        features: Any,
        initializer: Any = "uniform",
        shards: int = 1,
        l2: float = 0.0,
        joined: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.features = as_features(features)
        require_fitted(self.features)
        self.initializer = keras.initializers.get(initializer)
        self.shards = check.check_count("shards", shards)
        self.l2 = check.check_number("l2", l2, minimum=0)
        self.joined = bool(joined)
        if self.joined:
            self._check_pooled(self.features)
        places = [_Place.of(feature) for feature in self.features]
        self._batch_input = places[0].inputs[0]
        numbers = [place for place in places if isinstance(place.request, Number)]
        self._numbers = [place for place in numbers if len(place.inputs) == 1]
        self._several_numbers = [place for place in numbers if len(place.inputs) > 1]
        self._encoded = [place for place in places if isinstance(place.request, Encoder)]
        # Copies: specs may serve several models, and several embeddings of one, which must not train each other.
        self.encoders: dict[str, Any] = {}
        for place in self._encoded:
            if place.request.key not in self.encoders:
                self.encoders[place.request.key] = _copy(place.request.layer)
        self._groups = _group_tables(place for place in places if isinstance(place.request, Rows))

    def build(self, input_shape: Any = None) -> None:
        self.tables = []
        for i, group in enumerate(self._groups):
            rows = InitialRows(self.initializer, (group.num_rows, group.dim), i, group.pretrained())
            bounds = shard_bounds(group.num_rows, self.shards)
            for j, (start, stop) in enumerate(bounds):
                name = group.name if len(bounds) == 1 else f"{group.name}_shard_{j}"
                table = add_table(self.add_weight, rows, start, stop, trainable=group.trainable, name=name)
                self.tables.append(table)
        # Of features that share an encoder, the first one's gives the weights.
        for place in reversed(self._encoded):
            encoder, given = self.encoders[place.request.key], place.request.layer
            if not encoder.built:
                encoder.build(place.of_inputs(place.shapes))
            if given.built:
                encoder.set_weights(given.get_weights())

    def _tables_by_group(self) -> Iterator[tuple[_TableGroup, list[Any]]]:
        """Each group with the weights that hold its rows."""
        tables = iter(self.tables)
        for group in self._groups:
            yield group, [next(tables) for _ in shard_bounds(group.num_rows, self.shards)]

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        blocks: list[tuple[list[_Place], Any]] = []
        vectors: dict[str, Any] = {}
        squares = []
        for group, shards in self._tables_by_group():
            single, pooled, looked_up = self._look_up(group, shards, inputs)
            blocks += single
            vectors |= pooled
            if group.trainable and training and self.l2:
                squares += [ops.sum(ops.square(ops.cast(rows, "float32"))) for rows in looked_up]
        if squares:
            batch = ops.shape(inputs[self._batch_input])[0]
            # Keras divides what is added by the number of replicas.
            self.add_loss(self.l2 * sum(squares) / _backend.mean_over_replicas(batch))
        for place in self._encoded:
            vectors[place.name] = self.encoders[place.request.key](place.of_inputs(inputs))
        for place in self._several_numbers:
            vectors[place.name] = ops.stack([ops.cast(inputs[n], self.compute_dtype) for n in place.inputs], axis=1)
        if self._numbers:
            values = [ops.cast(inputs[place.inputs[0]], self.compute_dtype) for place in self._numbers]
            blocks.append((self._numbers, ops.stack(values, axis=1)[..., None]))
        if self.joined:
            return self._join(blocks, vectors)
        for places, rows in blocks:
            taken_apart = ops.unstack(rows, len(places), axis=1)
            vectors |= {place.name: vector for place, vector in zip(places, taken_apart, strict=True)}
        return {feature.name: vectors[feature.name] for feature in self.features}

    def _join(self, blocks: list[tuple[list[_Place], Any]], vectors: Mapping[str, Any]) -> Any:
        """Neighbours in a block, (batch, features, width), stay together."""
        at_block = {p.name: (i, j) for i, (places, _) in enumerate(blocks) for j, p in enumerate(places)}
        runs: list[Any] = []
        for feature in self.features:
            at = at_block.get(feature.name)
            if at is None:
                runs.append(feature.name)
            elif runs and isinstance(runs[-1], list) and runs[-1][-1] == (at[0], at[1] - 1):
                runs[-1].append(at)
            else:
                runs.append([at])
        parts = []
        for run in runs:
            if isinstance(run, str):
                parts.append(vectors[run])
                continue
            places, rows = blocks[run[0][0]]
            first, last = run[0][1], run[-1][1] + 1
            rows = rows if len(run) == len(places) else rows[:, first:last]
            parts.append(ops.reshape(rows, (-1, len(run) * rows.shape[-1])))
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def _look_up(self, group: _TableGroup, shards: list[Any], inputs: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """The block of single values, pooled vectors by feature, and all rows that were read, before pooling.

        One read for the single values of a group, one for its sums and means.
        """
        blocks, vectors, looked_up = [], {}, []
        single = [place for place in group.places if not place.is_list]
        if single:
            ids = ops.stack([ops.cast(inputs[place.inputs[0]], "int32") for place in single], axis=1)
            sizes = np.array([place.request.num_ids for place in single], "int32")
            offsets = np.array([group.offsets[place.name] for place in single], "int32")
            looked_up.append(_backend.gather_rows(shards, _within(ids, sizes) + offsets))
            blocks.append((single, ops.cast(looked_up[0], self.compute_dtype)))
        lists = {p.name: _rows_and_mask(inputs[p.inputs[0]], p, group) for p in group.places if p.is_list}
        summed = [p for p in group.places if p.is_list and p.request.pooling in ("sum", "mean") and not p.weights]
        if summed:
            # Where a table has single values too it is never read at no row, and its first id may be one of theirs.
            spare = None if single else MISSING_ID
            sums, rows = _backend.sum_rows(shards, [lists[place.name] for place in summed], spare)
            looked_up += rows
            for place, pooled in zip(summed, sums, strict=True):
                if place.request.pooling == "mean":
                    count = ops.sum(ops.cast(lists[place.name][1], pooled.dtype), axis=1, keepdims=True)
                    pooled = pooled / ops.maximum(count, 1.0)
                vectors[place.name] = ops.cast(pooled, self.compute_dtype)
        for place in group.places:
            if place.is_list and place not in summed:
                ids, real = lists[place.name]
                rows = _backend.gather_rows(shards, ids)
                rows = ops.where(real[..., None], rows, ops.zeros_like(rows))
                looked_up.append(rows)
                if place.weights:
                    pooled = _weighed(rows, inputs[place.weights], real, place.request.pooling)
                else:
                    pooled = _largest(rows, real) if place.request.pooling else rows
                vectors[place.name] = ops.cast(pooled, self.compute_dtype)
        return blocks, vectors, looked_up

    @staticmethod
    def _check_pooled(features: Any) -> None:
        for feature in features:
            if _Place.of(feature).is_unpooled:
                raise ValueError(
                    "`pooling` must be 'mean', 'sum' or 'max' for a sequence that stands beside other vectors; "
                    f"pooling=None is for models that read its values in order. Received: pooling=None for feature "
                    f"{feature.name!r}"
                )

    def concatenate(self, vectors: Mapping[str, Any]) -> Any:
        """The vectors side by side, (batch, sum of widths), in the order of the features; `vectors` may leave some out.

        Raises:
            ValueError: One of them is a sequence with `pooling=None`.
        """
        self._check_pooled([f for f in self.features if f.name in vectors])
        ordered = [vectors[feature.name] for feature in self.features if feature.name in vectors]
        return ordered[0] if len(ordered) == 1 else ops.concatenate(ordered, axis=-1)

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        shapes = {feature.name: self._output_shape(_Place.of(feature), inputs) for feature in self.features}
        if self.joined:
            batch = inputs[self._batch_input].shape[0]
            return keras.KerasTensor((batch, sum(shape[-1] or 0 for shape in shapes.values())), self.compute_dtype)
        return {name: keras.KerasTensor(shape, self.compute_dtype) for name, shape in shapes.items()}

    def _output_shape(self, place: _Place, inputs: Mapping[str, Any]) -> tuple[int | None, ...]:
        batch, request = inputs[place.inputs[0]].shape[0], place.request
        if isinstance(request, Encoder):
            shapes = {name: (batch, *shape[1:]) for name, shape in place.shapes.items()}
            return (batch, *self.encoders[request.key].compute_output_shape(place.of_inputs(shapes))[1:])
        if isinstance(request, Number):
            return (batch, len(place.inputs))
        length = place.shapes[place.inputs[0]][1:] if place.is_unpooled else ()
        return (batch, *length, request.dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": features_to_config(self.features),
            "initializer": keras.initializers.serialize(self.initializer),
            "shards": self.shards,
            "l2": self.l2,
            "joined": self.joined,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEmbedding:
        config = dict(config)
        config["features"] = features_from_config(config["features"])
        return cls(**config)


def _copy(encoder: Any) -> Any:
    return type(encoder).from_config(encoder.get_config())


class _Place(NamedTuple):
    """What a feature asks for, and the inputs that it is fed by."""

    name: str
    request: Any
    shapes: dict[str, tuple[int | None, ...]]

    @classmethod
    def of(cls, feature: Feature) -> _Place:
        specs = feature.input_specs()
        return cls(feature.name, feature.embed(), {name: (None, *spec.shape) for name, spec in specs.items()})

    @property
    def inputs(self) -> list[str]:
        return list(self.shapes)

    @property
    def is_list(self) -> bool:
        return len(next(iter(self.shapes.values()))) > 1

    @property
    def weights(self) -> str | None:
        """The input with the weights of a list's ids, if there is one."""
        return self.inputs[1] if isinstance(self.request, Rows) and self.request.weights else None

    @property
    def is_unpooled(self) -> bool:
        return isinstance(self.request, Rows) and self.is_list and self.request.pooling is None

    def of_inputs(self, by_name: Mapping[str, Any]) -> Any:
        """What an encoder takes: its one input, or a dict of them."""
        own = {name: by_name[name] for name in self.shapes}
        return own if len(own) > 1 else next(iter(own.values()))


class _TableGroup:
    """The tables of one width, one above the other in one fused table."""

    def __init__(self, dim: int, trainable: bool):
        self.dim, self.trainable = dim, trainable
        self.places: list[_Place] = []
        self.offsets: dict[str, int] = {}
        self.num_rows = 0
        self._table_offsets: dict[str, int] = {}

    @property
    def name(self) -> str:
        return f"table_{self.dim}" if self.trainable else f"frozen_table_{self.dim}"

    def add(self, place: _Place) -> None:
        table = place.request.table
        if table not in self._table_offsets:
            self._table_offsets[table] = self.num_rows
            self.num_rows += place.request.num_ids
        self.places.append(place)
        self.offsets[place.name] = self._table_offsets[table]

    def pretrained(self) -> list[tuple[int, np.ndarray]]:
        """(first row, matrix) of each matrix that rows start from."""
        given = [place for place in self.places if place.request.pretrained is not None]
        return [(self.offsets[place.name] + FIRST_ID, place.request.pretrained) for place in given]


def _group_tables(places: Iterator[_Place]) -> list[_TableGroup]:
    groups: dict[tuple[int, bool], _TableGroup] = {}
    for place in places:
        key = (place.request.dim, place.request.trainable)
        groups.setdefault(key, _TableGroup(*key)).add(place)
    return list(groups.values())


def _within(ids: Any, sizes: Any) -> Any:
    """Ids of features as rows of their tables; an id outside its own would read another feature's row."""
    known = ops.logical_and(ids >= 0, ids < sizes)
    return ops.where(known, ids, UNKNOWN_ID)


def _rows_and_mask(ids: Any, place: _Place, group: _TableGroup) -> tuple[Any, Any]:
    ids = ops.cast(ids, "int32")
    return _within(ids, place.request.num_ids) + group.offsets[place.name], ids != MISSING_ID


def _largest(rows: Any, real: Any) -> Any:
    # An empty list pools to zeros, as with the others.
    real = real[..., None]
    lowest = ops.where(real, rows, ops.full_like(rows, -1e9))
    return ops.where(ops.any(real, axis=1), ops.max(lowest, axis=1), 0.0)


def _weighed(rows: Any, weights: Any, real: Any, pooling: str | None) -> Any:
    weights = ops.where(real, ops.cast(weights, rows.dtype), 0.0)[..., None]
    rows = rows * weights
    if pooling is None:
        return rows
    if pooling == "max":
        return _largest(rows, real)
    total = ops.sum(rows, axis=1)
    if pooling == "sum":
        return total
    whole = ops.sum(weights, axis=1)
    return ops.where(whole > 0, total / ops.where(whole > 0, whole, 1.0), 0.0)
