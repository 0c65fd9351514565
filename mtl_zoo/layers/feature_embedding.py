from __future__ import annotations

import keras
import numpy as np
from keras import ops

from mtl_zoo import _backend
from mtl_zoo import _validation as check
from mtl_zoo.features.serialization import features_from_config, features_to_config
from mtl_zoo.features.spec import FIRST_ID, MISSING_ID, UNKNOWN_ID, Encoded, Numeric, as_features, require_fitted
from mtl_zoo.layers._tables import InitialRows, add_table, shard_bounds


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FeatureEmbedding(keras.layers.Layer):
    """Every feature as a vector, by name.

    Categoricals, sequences and bucketed numbers look up rows of an embedding table; all tables of one width are one
    fused table, each at its offset. Multi-hot features are summed and sequences pooled over their ids other than 0; a
    sequence with `pooling=None` stays a sequence, with zeros where it is padded. Numbers pass as (batch, 1); an
    `Encoded` feature goes through a copy of its layer, which starts from the layer's weights if it has any. An id
    outside its table counts as unknown (id 1).

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

    def __init__(self, features, initializer="uniform", shards=1, l2=0.0, joined=False, **kwargs):
        super().__init__(**kwargs)
        self.features = as_features(features)
        require_fitted(self.features)
        self.initializer = keras.initializers.get(initializer)
        self.shards = check.check_count("shards", shards)
        self.l2 = check.check_number("l2", l2, minimum=0)
        self.joined = bool(joined)
        if self.joined:
            self._check_pooled(self.features)
        # Copies: specs may serve several models, and several embeddings of one, which must not train each other.
        self.encoders = {f.name: _copy(f.encoder) for f in self.features if isinstance(f, Encoded)}
        self._groups = _group_tables(self.features)

    def build(self, input_shape=None):
        self.tables = []
        for i, group in enumerate(self._groups):
            rows = InitialRows(self.initializer, (group.num_rows, group.dim), i, group.pretrained())
            bounds = shard_bounds(group.num_rows, self.shards)
            for j, (start, stop) in enumerate(bounds):
                name = group.name if len(bounds) == 1 else f"{group.name}_shard_{j}"
                table = add_table(self.add_weight, rows, start, stop, trainable=group.trainable, name=name)
                self.tables.append(table)
        for feature in self.features:
            if isinstance(feature, Encoded):
                encoder = self.encoders[feature.name]
                if not encoder.built:
                    encoder.build((None, *feature.shape))
                if feature.encoder.built:
                    encoder.set_weights(feature.encoder.get_weights())

    def _tables_by_group(self):
        """Each group with the weights that hold its rows."""
        tables = iter(self.tables)
        for group in self._groups:
            yield group, [next(tables) for _ in shard_bounds(group.num_rows, self.shards)]

    def call(self, inputs, training=None):
        blocks, vectors, squares = [], {}, []
        for group, shards in self._tables_by_group():
            single, pooled, looked_up = self._look_up(group, shards, inputs)
            blocks += single
            vectors |= pooled
            if group.trainable and training and self.l2:
                squares += [ops.sum(ops.square(ops.cast(rows, "float32"))) for rows in looked_up]
        if squares:
            batch = ops.shape(inputs[self.features[0].name])[0]
            # Keras divides what is added by the number of replicas.
            self.add_loss(self.l2 * sum(squares) / _backend.mean_over_replicas(batch))
        for feature in self.features:
            if isinstance(feature, Encoded):
                vectors[feature.name] = self.encoders[feature.name](inputs[feature.name])
        numbers = [f for f in self.features if isinstance(f, Numeric) and not f.is_bucketed]
        if numbers:
            values = ops.stack([ops.cast(inputs[f.name], self.compute_dtype) for f in numbers], axis=1)
            blocks.append((numbers, values[..., None]))
        if self.joined:
            return self._join(blocks, vectors)
        for features, rows in blocks:
            taken_apart = ops.unstack(rows, len(features), axis=1)
            vectors |= {f.name: vector for f, vector in zip(features, taken_apart, strict=True)}
        return {feature.name: vectors[feature.name] for feature in self.features}

    def _join(self, blocks, vectors):
        """Neighbours in a block, (batch, features, width), stay together."""
        place = {f.name: (i, j) for i, (features, _) in enumerate(blocks) for j, f in enumerate(features)}
        runs = []
        for feature in self.features:
            at = place.get(feature.name)
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
            features, rows = blocks[run[0][0]]
            first, last = run[0][1], run[-1][1] + 1
            rows = rows if len(run) == len(features) else rows[:, first:last]
            parts.append(ops.reshape(rows, (-1, len(run) * rows.shape[-1])))
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def _look_up(self, group, shards, inputs):
        """The block of single values, pooled vectors by feature, and all rows that were read, before pooling.

        One read for the single values of a group, one for its sums and means.
        """
        blocks, vectors, looked_up = [], {}, []
        single = [f for f in group.features if not f.shape]
        if single:
            ids = ops.stack([ops.cast(inputs[f.name], "int32") for f in single], axis=1)
            sizes = np.array([f.num_ids for f in single], "int32")
            offsets = np.array([group.offsets[f.name] for f in single], "int32")
            looked_up.append(_backend.gather_rows(shards, _within(ids, sizes) + offsets))
            blocks.append((single, ops.cast(looked_up[0], self.compute_dtype)))
        lists = {f.name: _rows_and_mask(inputs[f.name], f, group) for f in group.features if f.shape}
        summed = [f for f in group.features if f.shape and f.pooling in ("sum", "mean")]
        if summed:
            # Where a table has single values too it is never read at no row, and its first id may be one of theirs.
            spare = None if single else MISSING_ID
            sums, rows = _backend.sum_rows(shards, [lists[f.name] for f in summed], spare)
            looked_up += rows
            for feature, pooled in zip(summed, sums, strict=True):
                if feature.pooling == "mean":
                    count = ops.sum(ops.cast(lists[feature.name][1], pooled.dtype), axis=1, keepdims=True)
                    pooled = pooled / ops.maximum(count, 1.0)
                vectors[feature.name] = ops.cast(pooled, self.compute_dtype)
        for feature in group.features:
            if feature.shape and feature not in summed:
                ids, real = lists[feature.name]
                rows = _backend.gather_rows(shards, ids)
                rows = ops.where(real[..., None], rows, ops.zeros_like(rows))
                looked_up.append(rows)
                vectors[feature.name] = ops.cast(_largest(rows, real) if feature.pooling else rows, self.compute_dtype)
        return blocks, vectors, looked_up

    @staticmethod
    def _check_pooled(features):
        for feature in features:
            if _is_unpooled(feature):
                raise ValueError(
                    "`pooling` must be 'mean', 'sum' or 'max' for a sequence that stands beside other vectors; "
                    f"pooling=None is for models that read its values in order. Received: pooling=None for feature "
                    f"{feature.name!r}"
                )

    def concatenate(self, vectors):
        """The vectors side by side, (batch, sum of widths), in the order of the features; `vectors` may leave some out.

        Raises:
            ValueError: One of them is a sequence with `pooling=None`.
        """
        self._check_pooled([f for f in self.features if f.name in vectors])
        ordered = [vectors[feature.name] for feature in self.features if feature.name in vectors]
        return ordered[0] if len(ordered) == 1 else ops.concatenate(ordered, axis=-1)

    def compute_output_spec(self, inputs, training=None):
        shapes = {f.name: self._output_shape(f, inputs) for f in self.features}
        if self.joined:
            batch = inputs[self.features[0].name].shape[0]
            return keras.KerasTensor((batch, sum(shape[-1] for shape in shapes.values())), self.compute_dtype)
        return {name: keras.KerasTensor(shape, self.compute_dtype) for name, shape in shapes.items()}

    def _output_shape(self, feature, inputs):
        batch = inputs[feature.name].shape[0]
        if isinstance(feature, Encoded):
            return (batch, *self.encoders[feature.name].compute_output_shape((batch, *feature.shape))[1:])
        if _is_unpooled(feature):
            return (batch, *feature.shape, feature.dim)
        return (batch, 1 if isinstance(feature, Numeric) and not feature.is_bucketed else feature.dim)

    def get_config(self):
        return {
            **super().get_config(),
            "features": features_to_config(self.features),
            "initializer": keras.initializers.serialize(self.initializer),
            "shards": self.shards,
            "l2": self.l2,
            "joined": self.joined,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["features"] = features_from_config(config["features"])
        return cls(**config)


def _copy(encoder):
    return type(encoder).from_config(encoder.get_config())


class _TableGroup:
    """The tables of one width, one above the other in one fused table."""

    def __init__(self, dim, trainable):
        self.dim, self.trainable = dim, trainable
        self.features, self.offsets, self.num_rows = [], {}, 0
        self._table_offsets = {}

    @property
    def name(self):
        return f"table_{self.dim}" if self.trainable else f"frozen_table_{self.dim}"

    def add(self, feature):
        if feature.table not in self._table_offsets:
            self._table_offsets[feature.table] = self.num_rows
            self.num_rows += feature.num_ids
        self.features.append(feature)
        self.offsets[feature.name] = self._table_offsets[feature.table]

    def pretrained(self):
        """(first row, matrix) of each matrix that rows start from."""
        given = [f for f in self.features if f.pretrained is not None]
        return [(self.offsets[f.name] + FIRST_ID, f.pretrained) for f in given]


def _group_tables(features):
    groups = {}
    for feature in features:
        if isinstance(feature, Encoded) or (isinstance(feature, Numeric) and not feature.is_bucketed):
            continue
        key = (feature.dim, feature.trainable)
        groups.setdefault(key, _TableGroup(*key)).add(feature)
    return list(groups.values())


def _is_unpooled(feature):
    return getattr(feature, "pooling", "") is None


def _within(ids, sizes):
    """Ids of features as rows of their tables; an id outside its own would read another feature's row."""
    known = ops.logical_and(ids >= 0, ids < sizes)
    return ops.where(known, ids, UNKNOWN_ID)


def _rows_and_mask(ids, feature, group):
    ids = ops.cast(ids, "int32")
    return _within(ids, feature.num_ids) + group.offsets[feature.name], ids != MISSING_ID


def _largest(rows, real):
    # An empty list pools to zeros, as with the others.
    real = real[..., None]
    lowest = ops.where(real, rows, ops.full_like(rows, -1e9))
    return ops.where(ops.any(real, axis=1), ops.max(lowest, axis=1), 0.0)
