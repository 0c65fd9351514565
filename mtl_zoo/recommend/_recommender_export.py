"""A recommender as one SavedModel: raw columns of users in, ids, fused scores and scores of tasks out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo._files import refuse_other_content, whole_folder
from mtl_zoo.serving import Scoring
from mtl_zoo.serving.formats.saved_model import SIGNATURE, cast_number, input_names, widths

MARKER, WHAT = "saved_model.pb", "a SavedModel"
EXCLUDE = "exclude"
# The largest difference between scores of the graph and those of the recommender.
_TOLERANCE = 1e-5


def export(
    recommender: Any, folder: str | os.PathLike[str], k: int | None, example: Any, overwrite: bool
) -> dict[str, str]:
    """See `Recommender.export`."""
    import tensorflow as tf

    catalogue = recommender.catalogue
    k = len(catalogue) if k is None else min(check.check_int("k", k), len(catalogue))
    place = Path(folder).absolute()
    refuse_other_content("folder", place, MARKER, WHAT)
    if (place / MARKER).exists() and not overwrite:
        raise ValueError(f"`folder` holds {WHAT}; overwrite=True replaces it. Received: folder={str(place)!r}")
    module, signatures, names = _module(recommender, catalogue, k)
    with whole_folder(place) as part:
        tf.saved_model.save(module, str(part), signatures=signatures)
        _compare(recommender, catalogue, tf.saved_model.load(str(part)), k, example)
    return names


def _module(recommender: Any, catalogue: Any, k: int) -> tuple[Any, dict[str, Any], dict[str, str]]:
    import tensorflow as tf

    scoring = Scoring(recommender.model, raw=True)
    columns = {name: scoring.columns[name] for name in recommender.user_columns}
    names = input_names([*columns, EXCLUDE])
    del names[EXCLUDE]  # its place is taken, so that a column of that name has another
    specs = {name: tf.TensorSpec((None, *c.shape), c.dtype, name=names[name]) for name, c in columns.items()}
    is_text = catalogue.ids.dtype == object
    id_type = "string" if is_text else "int64"
    with tf.device("CPU:0"):
        ids = tf.Variable(tf.constant(catalogue.ids.tolist(), id_type), trainable=False, name="ids")
        items = {name: tf.Variable(t, trainable=False, name="item") for name, t in catalogue.tensors.items()}

    def run(users: Mapping[str, Any], exclude: Any) -> dict[str, Any]:
        inputs, count, every = scoring.encode(users), _rows(users), len(catalogue)
        of_user = tf.repeat(tf.range(count), every)
        of_item = tf.tile(tf.range(every), [count])
        found = recommender.pairs.in_graph(inputs, items, of_user, of_item)
        scores = {
            column: tf.reshape(found[output][:, unit], (count, every))
            for column, (output, unit) in recommender.pairs.columns.items()
        }
        if exclude is None:
            order, fused = _ordered(recommender.fusion, scores, k)
            is_empty = None
        else:
            order, fused, is_empty = _ordered_without(recommender.fusion, scores, ids, exclude, k)
        given = {"item": tf.gather(ids, order), "score": fused}
        given |= {column: tf.gather(values, order, batch_dims=1) for column, values in scores.items()}
        if is_empty is None:
            return given
        blank = dict.fromkeys(given, np.nan) | {"item": "" if is_text else -1}
        return {n: tf.where(is_empty, tf.constant(blank[n], x.dtype), x) for n, x in given.items()}

    whole = tf.function(lambda users: run(users, None), autograph=False).get_concrete_function(specs)
    excluded = tf.TensorSpec((None, None), id_type, name=EXCLUDE)
    without = tf.function(run, autograph=False).get_concrete_function(specs, excluded)

    def cast(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {name: cast_number(tensor, specs[name].dtype) for name, tensor in tensors.items()}

    def of_inputs(**inputs: Any) -> dict[str, Any]:
        return whole(cast({column: inputs[name] for column, name in names.items()}))

    def of_inputs_without(exclude: Any, **inputs: Any) -> dict[str, Any]:
        return without(cast({column: inputs[name] for column, name in names.items()}), exclude)

    module = tf.Module(name=recommender.model.name)
    module.recommend = tf.function(lambda users: whole(cast(users)), autograph=False)
    module.recommend_without = tf.function(lambda users, exclude: without(cast(users), exclude), autograph=False)
    signatures = {}
    for signature, types in widths({name: spec.dtype.name for name, spec in specs.items()}).items():
        given = {name: tf.TensorSpec(spec.shape, types[name]) for name, spec in specs.items()}
        named = {names[c]: tf.TensorSpec(s.shape, s.dtype, name=names[c]) for c, s in given.items()}
        module.recommend.get_concrete_function(given)
        signatures[signature] = tf.function(of_inputs, autograph=False).get_concrete_function(**named)
        if signature == SIGNATURE:
            module.recommend_without.get_concrete_function(given, excluded)
            other = tf.function(of_inputs_without, autograph=False)
            signatures[f"{SIGNATURE}_{EXCLUDE}"] = other.get_concrete_function(excluded, **named)
    module.weights = list({id(v): v for v in (*whole.variables, *without.variables)}.values())
    module.tables = scoring.lookup_tables()
    return module, signatures, names


def _rows(users: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    return tf.shape(next(iter(users.values())))[0]


def _ordered(fusion: Any, scores: Mapping[str, Any], k: int) -> tuple[Any, Any]:
    """Places of the k best fused scores of each row, and these; of equal ones the first."""
    import tensorflow as tf

    fused = fusion.in_graph({name: tf.cast(values, tf.float64) for name, values in scores.items()})
    best, order = tf.math.top_k(fused, k)
    return order, best


def _ordered_without(fusion: Any, scores: Mapping[str, Any], ids: Any, exclude: Any, k: int) -> tuple[Any, Any, Any]:
    """`_ordered` where ids are left out before scores are fused, and which places then are empty."""
    import tensorflow as tf

    every = ids.shape[0]
    names = tuple(scores)

    def of_row(given: Any) -> tuple[Any, Any]:
        row, hidden = given
        unwanted = tf.reduce_any(tf.equal(ids[:, None], hidden[None, :]), axis=1)
        kept = tf.where(tf.logical_not(unwanted))[:, 0]
        fused = fusion.in_graph({n: tf.cast(tf.gather(row[n], kept), tf.float64)[None] for n in names})[0]
        best, order = tf.math.top_k(fused, tf.minimum(k, tf.size(fused)))
        missing = [[0, k - tf.size(best)]]
        places = tf.pad(tf.cast(tf.gather(kept, order), tf.int32), missing, constant_values=every)
        return places, tf.pad(best, missing, constant_values=tf.constant(np.nan, tf.float64))

    order, fused = tf.map_fn(
        of_row,
        ({n: scores[n] for n in names}, exclude),
        fn_output_signature=(tf.TensorSpec((k,), tf.int32), tf.TensorSpec((k,), tf.float64)),
    )
    is_empty = tf.equal(order, every)
    return tf.where(is_empty, 0, order), fused, is_empty


def _compare(recommender: Any, catalogue: Any, module: Any, k: int, example: Any) -> None:
    """Refuses what was written if it gives another list than the recommender does."""
    import tensorflow as tf

    frame, _, _ = recommender.known_users.rows(_example(recommender) if example is None else example)
    transform = recommender.model.transform
    raw = transform.raw_arrays_of(frame, recommender.user_columns)
    found = module.recommend({name: tf.constant(array) for name, array in raw.items()})
    wanted = recommender.recommend(frame, len(catalogue), exclude_seen=False, rerank=())
    of_user = np.repeat(np.arange(len(frame)), len(catalogue))
    for row, (items, scores) in enumerate(zip(found["item"].numpy(), found["score"].numpy(), strict=True)):
        mine = wanted[of_user == row]
        names = [item.decode() if isinstance(item, bytes) else item for item in items.tolist()]
        places = pd.Index(mine["item"]).get_indexer(names)
        # Scores that differ by rounding alone may stand in another order.
        near = np.allclose(scores, mine["score"].to_numpy()[places], _TOLERANCE, _TOLERANCE) and (places >= 0).all()
        if not near or not np.allclose(scores, mine["score"].to_numpy()[:k], _TOLERANCE, _TOLERANCE):
            raise RuntimeError(
                f"What was written gives another list than the recommender: {names[:5]} with {scores[:5].tolist()}. "
                f"Expected: {mine['item'].tolist()[:5]} with {mine['score'].tolist()[:5]}"
            )


def _example(recommender: Any) -> Any:
    """A user to try what was written on."""
    users = recommender.users
    if users is None or not set(recommender.user_columns) <= set(users.columns):
        raise ValueError(
            "`example` must be a user's row, on which what was written is tried, since the recommender's table of users "
            f"does not have all of {recommender.user_columns}. Received: none"
        )
    return users.head(3)
