"""The graph form of a transform: the arrays of `Fitted.encode`, from tensors and in TensorFlow's own operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_zoo.features import _ids, _numbers
from mtl_zoo.features._columns import MISSING_INTEGER
from mtl_zoo.features._fitted import Fitted
from mtl_zoo.features.spec import FIRST_ID, MISSING_ID, UNKNOWN_ID, Categorical, Encoded, Numeric, Sequence

_WHOLE_PATTERN = "[0-9]{1,18}"


def make_graph(fitted: Fitted) -> Any:
    """A `tf.Module` from raw tensors by column name to arrays by feature name; it holds the lookup tables."""
    import tensorflow as tf

    class TransformGraph(tf.Module):
        def __init__(self):
            super().__init__(name="feature_transform")
            self.tables = {
                name: _make_table(vocabulary)
                for name, vocabulary in fitted.vocabularies.items()
                if isinstance(vocabulary, _ids.Listed)
            }

        def __call__(self, raw: dict[str, Any]) -> dict[str, Any]:
            raw = _checked(fitted, raw)
            return {feature.name: self._encode(feature, raw[feature.source]) for feature in fitted.features}

        def _encode(self, feature: Any, raw: Any) -> Any:
            if isinstance(feature, Numeric):
                return _number(feature, fitted.moments[feature.name], raw)
            if isinstance(feature, Encoded):
                return raw if raw.dtype == tf.string else tf.cast(raw, feature.dtype)
            vocabulary, table = fitted.vocabularies[feature.table], self.tables.get(feature.table)
            if not _ids.holds_lists(feature):
                return _look_up(vocabulary, table, raw)
            rows, values, num_rows = _flat(feature, raw)
            return _pad(feature, rows, _look_up(vocabulary, table, values), num_rows, vocabulary.num_ids)

    # Tables made while a function is traced would live in that function's graph only.
    with tf.init_scope():
        return TransformGraph()


def _make_table(vocabulary: _ids.Listed) -> Any:
    import tensorflow as tf

    # The missing value comes along, since a table must not be empty; `_look_up` knows it before it looks.
    missing = "" if vocabulary.is_text else MISSING_INTEGER
    keys = tf.constant([missing, *vocabulary.values.tolist()], tf.string if vocabulary.is_text else tf.int64)
    ids = tf.concat([[MISSING_ID], tf.range(FIRST_ID, vocabulary.num_ids)], axis=0)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.cast(ids, tf.int64)), UNKNOWN_ID)


def _checked(fitted: Fitted, raw: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    from mtl_zoo.features._raw import signature

    specs = signature(fitted)
    missing = [name for name in specs if name not in raw]
    if missing:
        raise ValueError(f"`raw` must hold the features' columns. Received without: {missing}. Expected: {list(specs)}")
    tensors = {}
    for name, spec in specs.items():
        tensor = tf.convert_to_tensor(raw[name])
        if tensor.dtype != spec.dtype:
            raise ValueError(
                f"`{name}` must be {spec.dtype.name}, as in the training table. Received: {tensor.dtype.name}"
            )
        tensors[name] = tensor
    return tensors


def _look_up(vocabulary: _ids.Vocabulary, table: Any, raw: Any) -> Any:
    """int32 ids of a tensor of values, in its shape."""
    import tensorflow as tf

    number: Any
    text: Any
    if raw.dtype == tf.string:
        missing, known = raw == "", tf.ones_like(raw, dtype=tf.bool)
        text, number = raw, None
        if isinstance(vocabulary, _ids.Range):
            known = tf.strings.regex_full_match(raw, _WHOLE_PATTERN)
            number = tf.strings.to_number(tf.where(known, raw, "0"), tf.int64)
    else:
        missing, known, number = _whole_numbers(raw)
        text = None
    ids: Any
    if isinstance(vocabulary, _ids.Range):
        inside = (number >= 0) & (number < vocabulary.size)
        ids = tf.where(inside, number + FIRST_ID, tf.constant(UNKNOWN_ID, tf.int64))
    elif isinstance(vocabulary, _ids.Hashed):
        text = tf.strings.as_string(number) if text is None else text
        ids = tf.strings.to_hash_bucket_fast(text, vocabulary.buckets) + FIRST_ID
    elif vocabulary.is_text:
        ids = table.lookup(tf.strings.as_string(number) if text is None else text)
    else:
        ids = table.lookup(number)
    ids = tf.where(known, ids, tf.constant(UNKNOWN_ID, tf.int64))
    return tf.cast(tf.where(missing, tf.constant(MISSING_ID, tf.int64), ids), tf.int32)


def _whole_numbers(raw: Any) -> tuple[Any, Any, Any]:
    """Which numbers are missing, which are whole, and the whole ones as int64."""
    import tensorflow as tf

    if raw.dtype.is_floating:
        whole = (tf.floor(raw) == raw) & (tf.abs(raw) < 2.0**63)
        return tf.math.is_nan(raw), whole, tf.cast(tf.where(whole, raw, tf.zeros_like(raw)), tf.int64)
    number = tf.cast(raw, tf.int64)
    return number == MISSING_INTEGER, tf.ones_like(number, dtype=tf.bool), number


def _flat(feature: Any, raw: Any) -> tuple[Any, Any, Any]:
    """Lists, or strings split at the separator, as (row of each value, values, number of rows)."""
    import tensorflow as tf

    if raw.shape.rank == 1:
        lists = tf.strings.split(raw, feature.separator)
        return lists.value_rowids(), lists.values, lists.nrows()
    shape = tf.shape(raw, out_type=tf.int64)
    return tf.repeat(tf.range(shape[0]), shape[1]), tf.reshape(raw, [-1]), shape[0]


def _pad(feature: Any, rows: Any, ids: Any, num_rows: Any, num_ids: int) -> Any:
    import tensorflow as tf

    keep = ids != MISSING_ID
    rows, ids = rows[keep], ids[keep]
    if isinstance(feature, Categorical):
        keys, _ = tf.unique(rows * num_ids + tf.cast(ids, tf.int64))
        rows, ids = keys // num_ids, tf.cast(keys % num_ids, tf.int32)
    lists = tf.RaggedTensor.from_value_rowids(ids, rows, num_rows)
    lists = lists[:, -feature.length :] if isinstance(feature, Sequence) else lists[:, : feature.length]
    return lists.to_tensor(MISSING_ID, shape=(None, feature.length))


def _number(feature: Numeric, moments: _numbers.Moments, raw: Any) -> Any:
    import tensorflow as tf

    numbers = tf.cast(raw, tf.float64)
    if raw.dtype == tf.int64:
        numbers = tf.where(raw == MISSING_INTEGER, tf.constant(np.nan, tf.float64), numbers)
    finite = tf.math.is_finite(numbers)
    if moments.fill is not None:
        numbers = tf.where(finite, numbers, tf.constant(moments.fill, tf.float64))
    if feature.is_bucketed:
        boundaries = tf.constant(moments.boundaries, tf.float64)
        ids = tf.searchsorted(boundaries, numbers, side="right") + FIRST_ID
        return ids if moments.fill is not None else tf.where(finite, ids, MISSING_ID)
    if feature.normalization == "log":
        numbers = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
    return tf.cast((numbers - moments.mean) / moments.std, tf.float32)
