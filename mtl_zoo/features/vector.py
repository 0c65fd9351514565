"""Vectors that are known beforehand, of a text, a picture or a sound: scaled, with an indicator of missing ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceABC
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import EMPTY, FLOAT, INTEGER, Column, refuse_values
from mtl_zoo.features._states import ColumnType, State, Unseen, register_state
from mtl_zoo.features.base import Choice, Feature, InferRules, Summary, register_feature
from mtl_zoo.features.requests import Encoder, InputSpec

# Below it a length counts as none.
_EPSILON = 1e-12


@register_state("vector_moments")
@dataclasses.dataclass(frozen=True)
class VectorMoments(State):
    """What `fit` learned of vectors: their width, whether any was missing, and the scale of each dimension.

    Args:
        dim: Their width.
        has_missing: Whether any vector of the training table was missing.
        mean: Of each dimension; empty where vectors are not standardised.
        scale: 1 / std of each dimension, 0 of a constant one.
    """

    dim: int
    has_missing: bool
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def write(self, folder: Path, stem: str) -> dict[str, Any]:
        return self.identity()

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any]) -> VectorMoments:
        return cls(**{**config, "mean": tuple(config["mean"]), "scale": tuple(config["scale"])})

    def identity(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@register_feature("vector")
@dataclasses.dataclass(frozen=True)
class Vector(Feature):
    """A vector that is known beforehand: a language model's of a title, the visual features of a trailer.

    With `x` a row's vector and mean and std those of the training rows that have one, a dimension at a time:

        standardize: y = (x - mean) / std, 0 where the dimension is constant
        l2:          y = x / max(||x||, 1e-12), so that a vector of zeros stays one

    A missing vector becomes zeros, after the scaling. If any was missing in the training table, a second input,
    `<name>.missing`, is 1 where one is, and stands beside the vector. Numbers are read as float32.

    Args:
        name: Names the feature and the model's input, float32 of shape (batch, dim).
        dim: Width of the vectors. Default: that of the first one in `fit`.
        column: Its column in a table, of lists, arrays or Arrow lists, of a fixed size or not. Default: `name`.
        side: Whose feature it is, `"user"` or `"item"`, for retrieval and reports. Default: None, neither's.
        scaling: `"standardize"`, `"l2"`, or None, as they stand.
        encoder: What stands beside the other features' vectors. None: the vector itself. A whole number: a trained
            linear projection of that width. Or a Keras layer from (batch, dim), with the indicator (batch, dim + 1),
            to (batch, any width), of which each model trains and saves a copy.
        key: Features with the same key share one scale, and one copy of the encoder. Default: `name`.
        indicator: Whether there is the second input. Set by `fit`.

    Raises:
        ValueError: A vector has another width than `dim`, or holds what is no finite number of 32 bits; its row is
            named. An exported model, which cannot refuse, takes such a vector for a missing one; there a missing
            one is a row of NaN.

    Example:

    >>> from mtl_zoo import FeatureTransform, Vector
    >>> transform = FeatureTransform(Vector("title")).fit({"title": [[1.0, 5.0], [3.0, 5.0], None]})
    >>> {name: x.tolist() for name, x in transform.encode({"title": [None, [3.0, 5.0]]}).items()}
    {'title': [[0.0, 0.0], [1.0, 0.0]], 'title.missing': [1.0, 0.0]}
    """

    dim: int | None = None
    scaling: str | None = dataclasses.field(default="standardize", kw_only=True)
    encoder: Any = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)
    key: str | None = dataclasses.field(default=None, kw_only=True)
    indicator: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim is not None:
            check.check_int("dim", self.dim, maximum=check.MAX_UNITS)
        check.check_choice("scaling", self.scaling, ("standardize", "l2", None))
        check_encoder(self.encoder)
        if self.key is not None:
            check.check_name("key", self.key)

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.dim,)

    @property
    def rule(self) -> str:
        shown = "learned" if self.dim is None else str(self.dim)
        return f"dim={shown}, scaling={self.scaling!r}{', with an indicator' if self.indicator else ''}"

    # In a model.

    def unknown_sizes(self) -> tuple[str, ...]:
        return ("dim",) if self.dim is None else ()

    def input_specs(self) -> dict[str, InputSpec]:
        specs = {self.name: InputSpec((self.dim,), "float32")}
        return (
            {**specs, f"{self.name}.missing": InputSpec((), "float32", says_missing=True)} if self.indicator else specs
        )

    def embed(self) -> Encoder:
        import keras

        from mtl_zoo.layers.vector_encoder import VectorEncoder

        encoder = self.encoder
        if isinstance(encoder, int):
            encoder = keras.layers.Dense(encoder, name="projection")
        layer = VectorEncoder(encoder, name=f"{self._shared}_encoder")
        return Encoder(built_with(layer, encoder), self._shared)

    @property
    def _shared(self) -> str:
        return self.key or self.name

    @property
    def share_key(self) -> tuple[str, str]:
        return ("encoder", self._shared)

    def check_shares_with(self, first: Any) -> None:
        for argument in ("dim", "scaling", "indicator"):
            self._refuse_difference(first, argument)

    # From a table.

    @property
    def state_key(self) -> tuple[str, str]:
        return (VectorMoments.family, self._shared)

    def read(self, column: Column) -> np.ndarray:
        """float32 (n, width), rows of NaN where a vector is missing."""
        return read_vectors(column, self.dim)

    def fit(self, sharing: SequenceABC[tuple[Any, np.ndarray]]) -> VectorMoments:
        """Moments of the vectors that are there, in float64, a dimension at a time."""
        for feature, found in sharing:
            if not len(found) or np.isnan(found[:, 0]).all():
                raise ValueError(
                    f"`{feature.source}` must hold a vector to fit feature {feature.name!r}. Received: {len(found)} "
                    "rows, all missing"
                )
            if found.shape[1] != sharing[0][1].shape[1]:
                raise ValueError(
                    f"`{feature.source}` must hold vectors of one width, since features share the key "
                    f"{self._shared!r}. Received: {found.shape[1]} beside {sharing[0][1].shape[1]} of "
                    f"{sharing[0][0].source!r}"
                )
        there = [found[~np.isnan(found[:, 0])] for _, found in sharing]
        has_missing = any(len(kept) < len(found) for kept, (_, found) in zip(there, sharing, strict=True))
        vectors = there[0] if len(there) == 1 else np.concatenate(there)
        dim = vectors.shape[1]
        if self.scaling != "standardize":
            return VectorMoments(dim, has_missing)
        mean, std = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
        # The mean of equal numbers may be rounded, and their std is then no 0.
        constant = (vectors.min(axis=0) == vectors.max(axis=0)) | (std == 0)
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
        return VectorMoments(dim, has_missing, tuple(mean.tolist()), tuple(scale.tolist()))

    def sized(self, state: VectorMoments, reading: np.ndarray) -> Feature:
        return self.resized(state, {})

    def resized(self, state: VectorMoments, sizes: dict[str, Any]) -> Feature:
        return dataclasses.replace(self, dim=state.dim, indicator=state.has_missing)

    def summarize(self, reading: np.ndarray) -> Summary:
        return Summary(None, int(np.isnan(reading[:, 0]).sum()) if reading.shape[1] else len(reading))

    def encode(
        self, state: VectorMoments, column: Column, fitted: ColumnType
    ) -> tuple[dict[str, np.ndarray], Unseen | None]:
        """float32 (n, dim), and (n,) of the indicator."""
        vectors = read_vectors(column, state.dim)
        missing = np.isnan(vectors[:, 0])
        vectors[missing] = 0
        scaled = self._scaled(state, vectors)
        refuse_values(
            column.name, "must hold numbers that fit in 32 bits once scaled", ~np.isfinite(scaled).all(axis=1), vectors
        )
        scaled[missing] = 0
        indicator = {f"{self.name}.missing": missing.astype(np.float32)} if self.indicator else {}
        return {self.name: scaled, **indicator}, None

    def _scaled(self, state: VectorMoments, vectors: np.ndarray) -> np.ndarray:
        if self.scaling is None:
            return vectors
        if self.scaling == "l2":
            lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
            return (vectors / np.maximum(lengths, _EPSILON)).astype(np.float32)
        with np.errstate(over="ignore"):
            return ((vectors - np.array(state.mean)) * np.array(state.scale)).astype(np.float32)

    def encode_in_graph(self, lookup: VectorMoments, raw: Any) -> dict[str, Any]:
        import tensorflow as tf

        there = tf.reduce_all(tf.math.is_finite(raw), axis=1)
        vectors = tf.cast(tf.where(there[:, None], raw, tf.zeros_like(raw)), tf.float64)
        if self.scaling == "l2":
            lengths = tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True))
            vectors = vectors / tf.maximum(lengths, tf.constant(_EPSILON, tf.float64))
        elif self.scaling == "standardize":
            vectors = (vectors - tf.constant(lookup.mean, tf.float64)) * tf.constant(lookup.scale, tf.float64)
        scaled = tf.cast(vectors, tf.float32)
        scaled = tf.where(there[:, None] & tf.math.is_finite(scaled), scaled, tf.zeros_like(scaled))
        indicator = {f"{self.name}.missing": tf.cast(~there, tf.float32)} if self.indicator else {}
        return {self.name: scaled, **indicator}

    def raw_form(self) -> InputSpec:
        return InputSpec((self.dim,), "float32")

    def raw_array(self, column: Column) -> np.ndarray:
        return read_vectors(column, self.dim)

    @classmethod
    def infer(cls, column: Column, name: str, rules: InferRules) -> Choice | None:
        """Lists of numbers that are no ids, all of one length."""
        if not column.is_list or column.kind != FLOAT:
            return None
        lengths = pc.list_value_length(column.array).drop_null()
        if column.is_nested or pc.min(lengths) != pc.max(lengths) or pc.min(lengths).as_py() < 2:
            raise ValueError(
                f"`{column.name}` holds lists of numbers, which may be measured ones. Received: {column.shown}. Name "
                "it in `features`, as Vector(...) if all have one length or as Encoded(...) with an encoder of your "
                "own, or in `exclude`."
            )
        feature = cls(name, column=None if name == column.name else column.name)
        missing = column.array.null_count
        return Choice(feature, f"lists of {lengths[0]} numbers each", len(lengths), missing)

    @classmethod
    def examples(cls) -> list[tuple[Feature, list[Any]]]:
        holes = [[0.5, 1.0, 7.0], None, [3.0, 1e6, 7.0], [1.0, 1.0, 7.0], [0.0, 0.0, 7.0], [0.25, 4.0, 7.0]]
        whole = [[3, 4], [0, 0], [-1, 2], [5, 12], [7, 7], [1, 0]]
        return [
            (cls("title_vector"), holes),
            (cls("title_vector", 3, scaling="l2", encoder=4), holes),
            (cls("trailer", scaling=None), whole),
            (cls("trailer", scaling="l2", encoder=5), whole),
        ]

    # Kept in files.

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "encoder": encoder_config(self.encoder)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Feature:
        return cls(**{**config, "encoder": encoder_from_config(config["encoder"])})


def check_encoder(encoder: Any) -> None:
    """Refuses what is neither a width, nor a Keras layer, nor None."""
    if encoder is None or (callable(encoder) and not isinstance(encoder, type)):
        return
    if isinstance(encoder, bool) or not isinstance(encoder, int):
        raise TypeError(f"`encoder` must be a width, a Keras layer or None. Received: encoder={encoder!r}")
    check.check_int("encoder", encoder, maximum=check.MAX_UNITS)


def encoder_config(encoder: Any) -> Any:
    """A width as it is, a layer as Keras writes it."""
    import keras

    return encoder if encoder is None or isinstance(encoder, int) else keras.saving.serialize_keras_object(encoder)


def encoder_from_config(config: Any) -> Any:
    import keras

    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config


def built_with(layer: Any, encoder: Any) -> Any:
    """`layer`, which has no weights but its encoder's, built where that is: a model then starts from its weights."""
    if encoder is not None and getattr(encoder, "built", False):
        layer.built = True
    return layer


def read_vectors(column: Column, dim: int | None) -> np.ndarray:
    """float32 (n, dim), rows of NaN where there is none. All rows are read at once, whatever their number.

    Args:
        column: Of lists, arrays or Arrow lists.
        dim: The width that all must have. Default: None, the first one's.
    """
    rows = len(column.series)
    if column.kind == EMPTY and not column.is_list:
        return np.full((rows, dim or 0), np.nan, np.float32)
    if not column.is_list or column.is_nested or column.kind not in (INTEGER, FLOAT, EMPTY):
        raise ValueError(
            f"`{column.name}` must hold vectors: lists or arrays of numbers, one of them a row. "
            f"Received: {column.shown}, dtype {column.series.dtype}"
        )
    array = column.array
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), -1))
    there = lengths >= 0
    dim = int(lengths[there][0]) if dim is None else dim
    _refuse_rows(column, f"must hold vectors of {dim} numbers", there & (lengths != dim), lengths, "{} of them")
    if not dim:
        raise ValueError(f"`{column.name}` must hold vectors of at least one number. Received: empty lists")
    flat = pc.list_flatten(array)
    if not pa.types.is_float32(flat.type):
        flat = flat.cast(pa.float64(), safe=False)
    numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
    with np.errstate(over="ignore"):
        found = numbers.astype(np.float32)
    bad = ~np.isfinite(found)
    if bad.any():
        at = np.zeros(rows, bool)
        at[there] = bad.any(axis=1)
        first = np.zeros(rows)
        first[there] = numbers[np.arange(len(numbers)), bad.argmax(axis=1)]
        _refuse_rows(column, "must hold vectors of finite numbers of 32 bits", at, first, "{}")
    if len(found) == rows:
        return found if found.flags.writeable else found.copy()
    vectors = np.full((rows, dim), np.nan, np.float32)
    vectors[there] = found
    return vectors


def _refuse_rows(column: Column, rule: str, bad: np.ndarray, values: np.ndarray, shown: str) -> None:
    """Raises where any row is `bad`, naming the first ones and what they hold."""
    if bad.any():
        few = np.flatnonzero(bad)[:5]
        found = "; ".join(f"row {row}: {shown.format(values[row])}" for row in few)
        more = "; ..." if bad.sum() > len(few) else ""
        raise ValueError(f"`{column.name}` {rule}. Received: {int(bad.sum())} of {len(bad)} rows, {found}{more}")
