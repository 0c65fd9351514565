from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mtl_zoo import _backend, _once
from mtl_zoo import _validation as check
from mtl_zoo.features.base import as_features, features_from_config, features_to_config, require_fitted
from mtl_zoo.features.requests import MISSING_ID, Number, Rows
from mtl_zoo.layers._numbers import group_numbers
from mtl_zoo.layers._places import (
    Place,
    TableGroup,
    as_missing,
    call_encoder,
    check_queries,
    group_tables,
    largest,
    with_unknowns,
    within,
)
from mtl_zoo.layers._tables import InitialRows, add_int8_table, add_table, shard_bounds
from mtl_zoo.layers.feature_fusion import fusions_within, make_fusion
from mtl_zoo.options import TABLE_DTYPES, FeatureFusion, check_missing_rates


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FeatureEmbedding(keras.layers.Layer):
    """Every feature as a vector, by name.

    Categoricals, sequences and bucketed numbers look up rows of an embedding table; all tables of one width are one
    fused table, each at its offset. Multi-hot features are summed and sequences pooled over their ids other than 0; a
    sequence with `pooling=None` stays a sequence, with zeros where it is padded. Numbers pass as (batch, 1), or are
    encoded, all of one encoding by one layer; an indicator of missing ones stands beside them. An `Encoded` feature
    goes through a copy of its layer, which starts from the layer's weights if it has any. An id outside its table
    counts as unknown (id 1).

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
        fusions: Each a `FeatureFusion`, which takes several features' vectors and gives one, under its own name and
            behind the others. Default: ().
        missing_rates: By feature, the probability with which a row's value is read as missing in training: id 0, zeros,
            and 1 where an input says what is missing. Default: None, for none.
        table_dtype: How tables are held: `"float32"`, or `"int8"` with a float32 scale for each row. Such tables are
            zeros until `mtl_zoo.export.quantize` fills them, and are not trained. Default: "float32".

    Raises:
        ValueError: Sizes that are not known; `shards` below 1; `l2` below 0; a fusion of what is no vector here.

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
        fusions: Sequence[FeatureFusion] = (),
        missing_rates: Mapping[str, float] | None = None,
        table_dtype: str = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.features = as_features(features)
        require_fitted(self.features)
        self.initializer = keras.initializers.get(initializer)
        self.shards = check.check_count("shards", shards)
        self.l2 = check.check_number("l2", l2, minimum=0)
        self.table_dtype = check.check_choice("table_dtype", table_dtype, TABLE_DTYPES)
        self.joined = bool(joined)
        if self.joined:
            self._check_pooled(self.features)
        places = [Place.of(feature) for feature in self.features]
        self._batch_input = places[0].inputs[0]
        self._numbers = group_numbers(places)
        self.number_encoders = {group.name: group.make(self.dtype_policy) for group in self._numbers if group.name}
        check_queries(places)
        self._places = {place.name: place for place in places}
        # What asks for another feature's vector comes last.
        self._encoded = sorted((p for p in places if p.encoder), key=lambda p: p.encoder.query is not None)
        # Copies: specs may serve several models, and several embeddings of one, which must not train each other.
        self.encoders: dict[str, Any] = {}
        for place in self._encoded:
            if place.encoder.key not in self.encoders:
                self.encoders[place.encoder.key] = _copy(place.encoder.layer)
        rows = [place for place in places if isinstance(place.request, Rows)]
        self._groups = group_tables(rows)
        names = [place.name for place in places]
        self.missing_rates = {n: p for n, p in check_missing_rates(missing_rates or {}).items() if n in names}
        for feature in self.features:
            if feature.name in self.missing_rates and "string" in {s.dtype for s in feature.input_specs().values()}:
                raise ValueError(f"`missing_rates` must name features that are numbers. Received: {feature.name!r}")
        draws = self.missing_rates or any(place.request.unknown_rate for place in rows)
        self._seeds = keras.random.SeedGenerator() if draws else None
        self.fusions = fusions_within(fusions, names, [place.name for place in places if not place.is_unpooled])
        self._fused = {fusion.name: make_fusion(fusion, self.dtype_policy) for fusion in self.fusions}
        gone = {name for fusion in self.fusions for name in fusion.features}
        self._given = [name for name in names if name not in gone] + list(self._fused)

    def build(self, input_shape: Any = None) -> None:
        self.tables = []
        for i, group in enumerate(self._groups):
            rows = InitialRows(self.initializer, (group.num_rows, group.dim), i, group.pretrained())
            bounds = shard_bounds(group.num_rows, self.shards)
            for j, (start, stop) in enumerate(bounds):
                name = group.name if len(bounds) == 1 else f"{group.name}_shard_{j}"
                if self.table_dtype == "int8":
                    count = stop - start + (len(bounds) > 1)  # a part ends in a row of zeros
                    self.tables.append(add_int8_table(self.add_weight, count, group.dim, name))
                    continue
                table = add_table(self.add_weight, rows, start, stop, trainable=group.trainable, name=name)
                self.tables.append(table)
        for numbers in self._numbers:
            if numbers.name:
                self.number_encoders[numbers.name].build(numbers.shape)
        # Of features that share an encoder, the first one's gives the weights.
        for place in reversed(self._encoded):
            encoder, given = self.encoders[place.encoder.key], place.encoder.layer
            if not encoder.built:
                encoder.build(*self._encoded_shapes(place))
            if given.built:
                encoder.set_weights(given.get_weights())
        for fusion in self.fusions:
            self._fused[fusion.name].build(*self._fused_shapes(fusion))

    def tables_by_group(self) -> Iterator[tuple[TableGroup, list[Any]]]:
        """Each group with the weights that hold its rows."""
        tables = iter(self.tables)
        for group in self._groups:
            yield group, [next(tables) for _ in shard_bounds(group.num_rows, self.shards)]

    def rows_of(self, feature: str, ids: Any) -> Any:
        """Rows of the table that a feature reads, in the shape of `ids`, which are int32; as `call` reads them.

        What predicts an id compares with them.
        """
        request = self._places[feature].request
        group, shards = next(found for found in self.tables_by_group() if feature in found[0].offsets)
        return _backend.gather_rows(shards, within(ids, request.num_ids) + group.offsets[feature])

    def encoder_of(self, feature: str) -> Any:
        """The layer that makes a feature's vector, a copy of that in its spec; None where there is none."""
        encoder = self._places[feature].encoder
        return self.encoders[encoder.key] if encoder else None

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        once = _once.current()
        if once is not None and not training:
            return self._computed_once(inputs, once)
        return self._arrange(*self._vectors(inputs, training))

    def _computed_once(self, inputs: Mapping[str, Any], once: _once.Once) -> Any:
        """The same, where features of which all inputs are a user's are computed once a user."""
        alone = self._alone(once.inputs)
        blocks, vectors = self._vectors(once.inputs, False, alone)
        single = _apart(blocks) | vectors
        others = set(self._places) - alone
        known = {name: once.repeated(vector) for name, vector in single.items()}
        if not self.joined or self.fusions or not alone or not others:
            return self._arrange(*self._vectors(inputs, False, others, known))
        if not self._need_no(once.inputs, others):
            once = once._replace(kept=None)

        def others_joined() -> Any:
            return self._join(*self._vectors(inputs, False, others, known), [n for n in self._given if n in others])

        rows = once.of_rows(others_joined)
        apart = ops.concatenate([single[name] for name in self._given if name in alone], axis=-1)
        columns = [(name in alone, *bounds) for name, bounds in self.bounds().items()]
        return _once.mark(once, apart, rows, columns)

    def _need_no(self, inputs: Mapping[str, Any], names: Collection[str]) -> bool:
        """Whether none of these features needs any of these inputs."""
        queries = [p.encoder.query for p in self._encoded if p.name in names and p.encoder.query is not None]
        needed = {*names, *queries}
        return not any(one in inputs for place in self._places.values() if place.name in needed for one in place.inputs)

    def _alone(self, inputs: Mapping[str, Any]) -> set[str]:
        """The features that need these inputs alone."""
        alone = {place.name for place in self._places.values() if all(name in inputs for name in place.inputs)}
        for numbers in self._numbers:
            names = {place.name for place in numbers.places}
            if numbers.name and not names <= alone:  # they are encoded together
                alone -= names
        return alone - {p.name for p in self._encoded if p.encoder.query is not None and p.encoder.query not in alone}

    def vectors_of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The vector of every feature by name, (batch, width), before any are fused or put side by side."""
        blocks, vectors = self._vectors(inputs, False)
        return _apart(blocks) | vectors

    def assemble(self, vectors: Mapping[str, Any]) -> Any:
        """The layer's output from what `vectors_of` gives."""
        return self._arrange([], dict(vectors))

    def _vectors(
        self,
        inputs: Mapping[str, Any],
        training: bool | None,
        names: Collection[str] | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> tuple[list[tuple[list[Place], Any]], dict[str, Any]]:
        """What features have: single values of one table as a block, (batch, features, width), others by name.

        Args:
            inputs: As `call` takes them.
            training: As well.
            names: Of the features that are asked for. Default: all.
            known: Vectors of others.
        """
        names = self._places if names is None else names
        blocks: list[tuple[list[Place], Any]] = []
        vectors: dict[str, Any] = dict(known or {})
        masks: dict[str, Any] = {}
        squares = []
        seeds = self._seeds if training else None
        if seeds is not None and self.missing_rates:
            inputs = self._with_missing(inputs, seeds)
        for group, shards in self.tables_by_group():
            places = [place for place in group.places if place.name in names]
            if not places:
                continue
            single, pooled, looked_up, real = self._look_up(group, places, shards, inputs, seeds)
            blocks += single
            vectors |= pooled
            masks |= real
            if group.trainable and training and self.l2 and self.table_dtype == "float32":
                squares += [ops.sum(ops.square(ops.cast(rows, "float32"))) for rows in looked_up]
        if squares:
            batch = ops.shape(inputs[self._batch_input])[0]
            # Keras divides what is added by the number of replicas.
            self.add_loss(self.l2 * sum(squares) / _backend.mean_over_replicas(batch))
        for numbers in filter(None, (group.within(names) for group in self._numbers)):
            block, others = numbers.call(self.number_encoders.get(numbers.name), inputs, self.compute_dtype)
            vectors |= others
            if block is not None:
                blocks.append((numbers.alone, block))
        for place in self._encoded:
            if place.name not in names:
                continue
            taken = vectors[place.name] if place.name in masks else place.of_inputs(inputs)
            query = None if place.encoder.query is None else _vector_of(place.encoder.query, blocks, vectors)
            layer = self.encoders[place.encoder.key]
            vectors[place.name] = call_encoder(layer, taken, masks.get(place.name), query)
        return blocks, vectors

    def _arrange(self, blocks: list[tuple[list[Place], Any]], vectors: dict[str, Any]) -> Any:
        for fusion in self.fusions:
            parts = [_vector_of(name, blocks, vectors) for name in fusion.features]
            query = {} if fusion.query is None else {"query": _vector_of(fusion.query, blocks, vectors)}
            vectors[fusion.name] = self._fused[fusion.name](parts, **query)
        if self.joined:
            return self._join(blocks, vectors, self._given)
        vectors |= _apart(blocks)
        return {name: vectors[name] for name in self._given}

    def _with_missing(self, inputs: Mapping[str, Any], seeds: Any) -> dict[str, Any]:
        """The inputs with some rows' values missing, drawn anew for each feature of `missing_rates`."""
        changed = dict(inputs)
        batch = ops.shape(inputs[self._batch_input])[0]
        for name, rate in self.missing_rates.items():
            is_gone = ops.less(keras.random.uniform((batch,), seed=seeds), rate)
            place = self._places[name]
            for one in place.inputs:
                changed[one] = as_missing(inputs[one], is_gone, one in place.says_missing)
        return changed

    @staticmethod
    def _join(blocks: list[tuple[list[Place], Any]], vectors: Mapping[str, Any], names: Sequence[str]) -> Any:
        """Neighbours in a block, (batch, features, width), stay together."""
        at_block = {p.name: (i, j) for i, (places, _) in enumerate(blocks) for j, p in enumerate(places)}
        runs: list[Any] = []
        for name in names:
            at = at_block.get(name)
            if at is None:
                runs.append(name)
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

    def _look_up(
        self, group: TableGroup, places: list[Place], shards: list[Any], inputs: Mapping[str, Any], seeds: Any
    ) -> tuple[Any, Any, Any, Any]:
        """The block of single values; pooled vectors by feature, rows where its encoder takes them; all rows that were
        read, before pooling; and by feature which of an encoder's rows are no padding.

        One read for the single values of a group, one for its sums and means.
        """
        blocks, vectors, looked_up, masks = [], {}, [], {}
        single = [place for place in places if not place.is_list]
        if single:
            ids = ops.stack([ops.cast(inputs[place.inputs[0]], "int32") for place in single], axis=1)
            sizes = np.array([place.request.num_ids for place in single], "int32")
            offsets = np.array([group.offsets[place.name] for place in single], "int32")
            rates = np.array([place.request.unknown_rate for place in single], "float32")
            if seeds is not None and rates.any():
                ids = with_unknowns(ids, rates, seeds)
            looked_up.append(_backend.gather_rows(shards, within(ids, sizes) + offsets))
            blocks.append((single, ops.cast(looked_up[0], self.compute_dtype)))
        listed = [place for place in places if place.is_list]
        lists = {place.name: place.ids_and_mask(inputs, group.offsets[place.name], seeds) for place in listed}
        summed = [place for place in listed if place.request.pooling in ("sum", "mean")]
        if summed:
            # Where a table has single values too it is never read at no row, and its first id may be one of theirs.
            spare = None if single else MISSING_ID
            weights = [place.weights(inputs) for place in summed]
            sums, rows = _backend.sum_rows(shards, [lists[place.name] for place in summed], spare, weights)
            looked_up += rows
            for place, pooled, weight in zip(summed, sums, weights, strict=True):
                if place.request.pooling == "mean":
                    pooled = pooled / _counts(lists[place.name][1], weight, pooled.dtype)
                vectors[place.name] = ops.cast(pooled, self.compute_dtype)
        for place in listed:
            if place not in summed:
                ids, real = lists[place.name]
                rows = _backend.gather_rows(shards, ids)
                rows = ops.where(real[..., None], rows, ops.zeros_like(rows))
                looked_up.append(rows)
                weight = place.weights(inputs)
                if weight is not None:
                    rows = rows * ops.cast(weight, rows.dtype)[..., None]
                pooled = largest(rows, real) if place.request.pooling else rows
                vectors[place.name] = ops.cast(pooled, self.compute_dtype)
                if place.encoder:
                    masks[place.name] = real
        return blocks, vectors, looked_up, masks

    @staticmethod
    def _check_pooled(features: Any) -> None:
        for feature in features:
            if Place.of(feature).is_unpooled:
                raise ValueError(
                    "`pooling` must be 'mean', 'sum' or 'max' for a sequence that stands beside other vectors; "
                    f"pooling=None is for models that read its values in order. Received: pooling=None for feature "
                    f"{feature.name!r}"
                )

    def concatenate(self, vectors: Mapping[str, Any]) -> Any:
        """The vectors side by side, (batch, sum of widths), in the order of the features and fused ones last.

        `vectors` may leave some out.

        Raises:
            ValueError: One of them is a sequence with `pooling=None`.
        """
        self._check_pooled([f for f in self.features if f.name in vectors])
        ordered = [vectors[name] for name in self._given if name in vectors]
        return ordered[0] if len(ordered) == 1 else ops.concatenate(ordered, axis=-1)

    def bounds(self) -> dict[str, tuple[int, int]]:
        """The first column of each feature's (or fusion's) vector in the joined one, and the column behind its last."""
        fused = {fusion.name: fusion.units for fusion in self.fusions}
        widths = [fused[name] if name in fused else self._shape_of(name)[-1] or 0 for name in self._given]
        ends = np.cumsum(widths).tolist()
        return {n: (end - width, end) for n, width, end in zip(self._given, widths, ends, strict=True)}

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> Any:
        shapes = {place.name: self._output_shape(place, inputs) for place in self._places.values()}
        batch = inputs[self._batch_input].shape[0]
        shapes |= {fusion.name: (batch, fusion.units) for fusion in self.fusions}
        shapes = {name: shapes[name] for name in self._given}
        if self.joined:
            return keras.KerasTensor((batch, sum(shape[-1] or 0 for shape in shapes.values())), self.compute_dtype)
        return {name: keras.KerasTensor(shape, self.compute_dtype) for name, shape in shapes.items()}

    def _output_shape(self, place: Place, inputs: Mapping[str, Any]) -> tuple[int | None, ...]:
        batch, request = inputs[place.inputs[0]].shape[0], place.request
        if place.encoder:
            shapes = self._encoded_shapes(place)
            return (batch, *self.encoders[place.encoder.key].compute_output_shape(*shapes)[1:])
        if isinstance(request, Number):
            return (batch, request.width + len(place.inputs) - 1)
        length = place.shapes[place.inputs[0]][1:] if place.is_unpooled else ()
        return (batch, *length, request.dim)

    def _encoded_shapes(self, place: Place) -> tuple[Any, ...]:
        """Shapes that a feature's encoder is built for: of what it takes, and of its query if it has one."""
        query = place.encoder.query if place.encoder else None
        return (place.encoded_shape,) if query is None else (place.encoded_shape, self._shape_of(query))

    def _fused_shapes(self, fusion: FeatureFusion) -> tuple[Any, ...]:
        parts = [self._shape_of(name) for name in fusion.features]
        return (parts,) if fusion.query is None else (parts, self._shape_of(fusion.query))

    def _shape_of(self, name: str) -> tuple[int | None, ...]:
        """Shape of a feature's vector, for any batch."""
        place = self._places[name]
        return self._output_shape(place, {one: keras.KerasTensor(shape) for one, shape in place.shapes.items()})

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": features_to_config(self.features),
            "initializer": keras.initializers.serialize(self.initializer),
            "shards": self.shards,
            "l2": self.l2,
            "joined": self.joined,
            "fusions": [fusion.get_config() for fusion in self.fusions],
            "missing_rates": self.missing_rates,
            "table_dtype": self.table_dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEmbedding:
        config = dict(config)
        config["features"] = features_from_config(config["features"])
        config["fusions"] = [FeatureFusion.from_config(one) for one in config.get("fusions", ())]
        return cls(**config)


def _copy(encoder: Any) -> Any:
    return type(encoder).from_config(encoder.get_config())


def _apart(blocks: list[tuple[list[Place], Any]]) -> dict[str, Any]:
    """The vectors of blocks, by feature."""
    parts = [zip(places, ops.unstack(rows, len(places), axis=1), strict=True) for places, rows in blocks]
    return {place.name: vector for part in parts for place, vector in part}


def _vector_of(name: str, blocks: list[tuple[list[Place], Any]], vectors: Mapping[str, Any]) -> Any:
    """A feature's vector, wherever it stands by now."""
    if name in vectors:
        return vectors[name]
    return next(rows[:, i] for places, rows in blocks for i, place in enumerate(places) if place.name == name)


def _counts(real: Any, weights: Any, dtype: str) -> Any:
    """What a mean divides by: how many ids there are, or the sum of their weights' absolute values."""
    if weights is None:
        return ops.maximum(ops.sum(ops.cast(real, dtype), axis=1, keepdims=True), 1.0)
    total = ops.sum(ops.where(real, ops.abs(ops.cast(weights, dtype)), 0.0), axis=1, keepdims=True)
    return ops.where(total > 0, total, 1.0)
