from __future__ import annotations

import keras
import numpy as np
from keras import ops

from mtl_zoo import _backend
from mtl_zoo.features.serialization import features_from_config, features_to_config
from mtl_zoo.features.spec import FIRST_ID, UNKNOWN_ID, Encoded, Numeric, as_features, require_fitted


@keras.saving.register_keras_serializable(package="mtl_zoo")
class FeatureEmbedding(keras.layers.Layer):
    """Every feature as a vector, by name.

    Categoricals, sequences and bucketed numbers look up rows of an embedding table; all tables of one width are one
    fused weight, each at its offset. Multi-hot features are summed and sequences pooled over their ids other than 0.
    Numbers pass as (batch, 1); an `Encoded` feature goes through a copy of its layer, which starts from the layer's
    weights if it has any. An id outside its table counts as
    unknown (id 1).

    Args:
        features: Feature specs with known sizes.
        initializer: Of the tables. Rows of a `pretrained` matrix start from it instead.

    Input: dict of feature name -> tensor, as `make_inputs` gives. Output: dict of feature name -> (batch, width).
    `concatenate` joins it to one (batch, sum of widths) tensor, in the order of `features`.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo import Categorical, Numeric
    >>> from mtl_zoo.layers import FeatureEmbedding
    >>> embedding = FeatureEmbedding([Categorical("city", size=3, dim=4), Numeric("age")])
    >>> vectors = embedding({"city": np.array([2, 0]), "age": np.array([0.5, -1.0], "float32")})
    >>> {name: tuple(x.shape) for name, x in vectors.items()}
    {'city': (2, 4), 'age': (2, 1)}
    """

    def __init__(self, features, initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.features = as_features(features)
        require_fitted(self.features)
        self.initializer = keras.initializers.get(initializer)
        # Copies: specs may serve several models, and several embeddings of one, which must not train each other.
        self.encoders = {f.name: _copy(f.encoder) for f in self.features if isinstance(f, Encoded)}
        self._groups = _group_tables(self.features)

    def build(self, input_shape=None):
        self.tables = []
        for group in self._groups:
            table = self.add_weight(
                shape=(group.num_rows, group.dim),
                initializer=lambda shape, dtype=None, group=group: self._initial_rows(group, dtype),
                trainable=group.trainable,
                # Cast after the lookup: with mixed precision a cast before it would convert the whole table.
                autocast=False,
                name=group.name,
            )
            self.tables.append(_backend.mark_table(table))
        for feature in self.features:
            if isinstance(feature, Encoded):
                encoder = self.encoders[feature.name]
                if not encoder.built:
                    encoder.build((None, *feature.shape))
                if feature.encoder.built:
                    encoder.set_weights(feature.encoder.get_weights())

    def _initial_rows(self, group, dtype):
        rows = self.initializer((group.num_rows, group.dim), dtype=dtype)
        given = [f for f in group.features if f.pretrained is not None]
        if not given:
            return rows
        rows = np.array(ops.convert_to_numpy(rows))
        for feature in given:
            start = group.offsets[feature.name] + FIRST_ID
            rows[start : start + len(feature.pretrained)] = feature.pretrained
        return ops.convert_to_tensor(rows, dtype=dtype)

    def call(self, inputs):
        vectors = {}
        for group, table in zip(self._groups, self.tables, strict=True):
            vectors |= self._look_up(group, table, inputs)
        for feature in self.features:
            if isinstance(feature, Encoded):
                vectors[feature.name] = self.encoders[feature.name](inputs[feature.name])
            elif feature.name not in vectors:
                vectors[feature.name] = ops.cast(inputs[feature.name], self.compute_dtype)[:, None]
        return {feature.name: vectors[feature.name] for feature in self.features}

    def _look_up(self, group, table, inputs):
        vectors = {}
        single = [f for f in group.features if not f.shape]
        if single:
            # One read for all single-valued features of the group.
            ids = ops.stack([_rows(inputs[f.name], f, group) for f in single], axis=1)
            rows = ops.cast(_backend.gather_rows(table, ids), self.compute_dtype)
            vectors |= {f.name: rows[:, i] for i, f in enumerate(single)}
        for feature in group.features:
            if feature.shape:
                ids = ops.cast(inputs[feature.name], "int32")
                rows = _backend.gather_rows(table, _rows(ids, feature, group))
                pooled = _pool(feature.pooling, rows, ops.cast(ids != 0, rows.dtype)[..., None])
                vectors[feature.name] = ops.cast(pooled, self.compute_dtype)
        return vectors

    def concatenate(self, vectors):
        """The vectors side by side, (batch, sum of widths), in the order of the features."""
        ordered = [vectors[feature.name] for feature in self.features]
        return ordered[0] if len(ordered) == 1 else ops.concatenate(ordered, axis=-1)

    def compute_output_spec(self, inputs):
        return {f.name: keras.KerasTensor(self._output_shape(f, inputs), self.compute_dtype) for f in self.features}

    def _output_shape(self, feature, inputs):
        batch = inputs[feature.name].shape[0]
        if isinstance(feature, Encoded):
            return (batch, *self.encoders[feature.name].compute_output_shape((batch, *feature.shape))[1:])
        return (batch, 1 if isinstance(feature, Numeric) and not feature.is_bucketed else feature.dim)

    def get_config(self):
        return {
            **super().get_config(),
            "features": features_to_config(self.features),
            "initializer": keras.initializers.serialize(self.initializer),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["features"] = features_from_config(config["features"])
        return cls(**config)


def _copy(encoder):
    return type(encoder).from_config(encoder.get_config())


class _TableGroup:
    """The tables of one width, one above the other in one weight."""

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


def _group_tables(features):
    groups = {}
    for feature in features:
        if isinstance(feature, Encoded) or (isinstance(feature, Numeric) and not feature.is_bucketed):
            continue
        key = (feature.dim, feature.trainable)
        groups.setdefault(key, _TableGroup(*key)).add(feature)
    return list(groups.values())


def _rows(ids, feature, group):
    """Ids of a feature as rows of its group's weight; an id outside the table would read another feature's row."""
    ids = ops.cast(ids, "int32")
    known = ops.logical_and(ids >= 0, ids < feature.num_ids)
    return ops.where(known, ids, UNKNOWN_ID) + group.offsets[feature.name]


def _pool(pooling, rows, mask):
    if pooling == "max":
        # An empty list pools to zeros, as with the others.
        lowest = ops.where(mask > 0, rows, ops.full_like(rows, -1e9))
        return ops.where(ops.any(mask > 0, axis=1), ops.max(lowest, axis=1), 0.0)
    total = ops.sum(rows * mask, axis=1)
    return total / ops.maximum(ops.sum(mask, axis=1), 1.0) if pooling == "mean" else total
