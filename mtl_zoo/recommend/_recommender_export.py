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

    graph = _Graph(recommender, catalogue, k)
    names = input_names([*graph.columns, EXCLUDE])
    del names[EXCLUDE]  # its place is taken, so that a column of that name has another
    specs = {name: tf.TensorSpec((None, *c.shape), c.dtype, name=names[name]) for name, c in graph.columns.items()}
    whole = tf.function(lambda users: graph(users, None), autograph=False).get_concrete_function(specs)
    excluded = tf.TensorSpec((None, None), graph.ids.dtype, name=EXCLUDE)
    without = tf.function(graph.__call__, autograph=False).get_concrete_function(specs, excluded)

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
    module.tables = graph.scoring.lookup_tables()
    return module, signatures, names


class _Graph:
    """Columns of users, and the ids that each is not to see, to the k best items and their scores."""

    def __init__(self, recommender: Any, catalogue: Any, k: int):
        import tensorflow as tf

        self.scoring = Scoring(recommender.model, raw=True)
        self.columns = {name: self.scoring.columns[name] for name in recommender.user_columns}
        self._pairs, self._fusion, self._k = recommender.pairs, recommender.fusion, k
        self._nearest = _Nearest(recommender, catalogue, k)
        self._is_text = catalogue.ids.dtype == object
        with tf.device("CPU:0"):
            ids = tf.constant(catalogue.ids.tolist(), "string" if self._is_text else "int64")
            self.ids = tf.Variable(ids, trainable=False, name="ids")
            self._items = {name: tf.Variable(t, trainable=False, name="item") for name, t in catalogue.tensors.items()}

    def __call__(self, users: Mapping[str, Any], exclude: Any) -> dict[str, Any]:
        import tensorflow as tf

        inputs = self.scoring.encode(users)
        count = tf.shape(next(iter(users.values())))[0]
        allowed = None
        if exclude is not None:
            allowed = tf.logical_not(tf.reduce_any(self.ids[None, :, None] == exclude[:, None, :], axis=2))
        candidates = self._nearest(inputs, count, allowed)
        width = tf.shape(candidates)[1]
        places = tf.repeat(tf.range(count), width), tf.reshape(candidates, [-1])
        found = self._pairs.in_graph(inputs, self._items, *places)
        scores = {
            column: tf.reshape(found[output][:, unit], (count, width))
            for column, (output, unit) in self._pairs.columns.items()
        }
        is_empty = None
        if allowed is None:
            order, fused = _ordered(self._fusion, scores, self._k)
        else:
            valid = tf.gather(allowed, candidates, batch_dims=1)
            order, fused, is_empty = _ordered_valid(self._fusion, scores, valid, self._k)
        given = {"item": tf.gather(self.ids, tf.gather(candidates, order, batch_dims=1)), "score": fused}
        given |= {column: tf.gather(values, order, batch_dims=1) for column, values in scores.items()}
        if is_empty is None:
            return given
        blank = dict.fromkeys(given, np.nan) | {"item": "" if self._is_text else -1}
        return {n: tf.where(is_empty, tf.constant(blank[n], x.dtype), x) for n, x in given.items()}


class _Nearest:
    """The candidates of each user in a graph, (users, candidates) rows of the catalogue in its order."""

    def __init__(self, recommender: Any, catalogue: Any, k: int):
        import tensorflow as tf

        self._items, self._count = len(catalogue), min(max(recommender.candidates, k), len(catalogue))
        self._tower = None
        if recommender.fetching is not None:
            self._tower = recommender.model.side_tower("user", recommender.fetching.task)
            with tf.device("CPU:0"):
                self._vectors = tf.Variable(catalogue.vectors, trainable=False, name="vectors")

    def __call__(self, inputs: Mapping[str, Any], users: Any, allowed: Any) -> Any:
        import tensorflow as tf

        if self._tower is None:
            return tf.tile(tf.range(self._items)[None, :], [users, 1])
        vectors = self._tower({name: inputs[name] for name in self._tower.input}, training=False)
        affinity = tf.matmul(vectors, self._vectors, transpose_b=True)
        if allowed is not None:
            affinity = tf.where(allowed, affinity, -np.inf)
        return tf.sort(tf.math.top_k(affinity, self._count).indices, axis=1)


def _ordered(fusion: Any, scores: Mapping[str, Any], k: int) -> tuple[Any, Any]:
    """Places of the k best fused scores of each row, and these; of equal ones the first."""
    import tensorflow as tf

    fused = fusion.in_graph({name: tf.cast(values, tf.float64) for name, values in scores.items()})
    best, order = tf.math.top_k(fused, k)
    return order, best


def _ordered_valid(fusion: Any, scores: Mapping[str, Any], valid: Any, k: int) -> tuple[Any, Any, Any]:
    """`_ordered` of those candidates that are valid, and which places then are empty."""
    import tensorflow as tf

    def of_row(given: Any) -> tuple[Any, Any]:
        row, is_valid = given
        kept = tf.where(is_valid)[:, 0]
        fused = fusion.in_graph({n: tf.cast(tf.gather(x, kept), tf.float64)[None] for n, x in row.items()})[0]
        best, order = tf.math.top_k(fused, tf.minimum(k, tf.size(fused)))
        missing = [[0, k - tf.size(best)]]
        places = tf.pad(tf.cast(tf.gather(kept, order), tf.int32), missing, constant_values=-1)
        return places, tf.pad(best, missing, constant_values=tf.constant(np.nan, tf.float64))

    signature = (tf.TensorSpec((k,), tf.int32), tf.TensorSpec((k,), tf.float64))
    order, fused = tf.map_fn(of_row, (dict(scores), valid), fn_output_signature=signature)
    is_empty = tf.equal(order, -1)
    return tf.maximum(order, 0), fused, is_empty


def _compare(recommender: Any, catalogue: Any, module: Any, k: int, example: Any) -> None:
    """Refuses what was written if it gives another list than the recommender does."""
    import tensorflow as tf

    frame, _, _ = recommender.known_users.rows(_example(recommender) if example is None else example)
    raw = recommender.model.transform.raw_arrays_of(frame, recommender.user_columns)
    found = module.recommend({name: tf.constant(array) for name, array in raw.items()})
    lists = zip(frame.to_dict("records"), found["item"].numpy(), found["score"].numpy(), strict=True)
    for row, items, scores in lists:
        candidates = _exact_candidates(recommender, catalogue, row, k)
        wanted = recommender.recommend(row, len(catalogue), exclude_seen=False, rerank=(), candidates=candidates)
        names = [item.decode() if isinstance(item, bytes) else item for item in items.tolist()]
        places = pd.Index(wanted["item"]).get_indexer(pd.Index(names))
        right = wanted["score"].to_numpy()
        # Scores that differ by rounding alone may stand in another order.
        same = (places >= 0).all() and np.allclose(scores, right[places], _TOLERANCE, _TOLERANCE)
        if not same or not np.allclose(scores, right[:k], _TOLERANCE, _TOLERANCE):
            raise RuntimeError(
                f"What was written gives another list than the recommender: {names[:5]} with {scores[:5].tolist()}. "
                f"Expected: {wanted['item'].tolist()[:5]} with {right[:5].tolist()}"
            )


def _exact_candidates(recommender: Any, catalogue: Any, row: Mapping[Any, Any], k: int) -> list[Any] | None:
    """The nearest items by all products, whatever the index finds; None without an index."""
    if recommender.fetching is None:
        return None
    vectors = recommender.fetching.vectors_of(recommender.inputs_of(row))
    order = np.argsort(-(catalogue.vectors @ vectors[0]), kind="stable")
    return catalogue.ids[np.sort(order[: max(recommender.candidates, k)])].tolist()


def _example(recommender: Any) -> Any:
    """A user to try what was written on."""
    users = recommender.users
    if users is None or not set(recommender.user_columns) <= set(users.columns):
        raise ValueError(
            "`example` must be a user's row, on which what was written is tried, since the recommender's table of "
            f"users does not have all of {recommender.user_columns}. Received: none"
        )
    return users.head(3)
