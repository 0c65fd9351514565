from __future__ import annotations

from typing import Any

import numpy as np

from mtl_zoo.recommend._ids import EMPTY
from mtl_zoo.recommend.indexes._arrays import joined, rows_at_once
from mtl_zoo.recommend.indexes._base import Index, register_index


@register_index("exact")
class ExactIndex(Index):
    """Every item's score, and the k largest. Of equal scores the item that was added first comes first.

    Scores are computed in float32 by BLAS, which may give two equal vectors scores that differ in the last bit; those
    of all items that could be among the k best are therefore computed again in float64, in which the order is decided.
    So the ids are those of `np.argsort(-(vectors @ query), kind="stable")[:k]` in float64, on any machine and for any
    number of rows at once.

    A search holds the scores of all items for as many rows at once as take 128 MB, twice, and for one row at least.
    Adding, removing and updating copies the vectors once.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.recommend import ExactIndex
    >>> index = ExactIndex().build([10, 11, 12], np.eye(3))
    >>> index.query(np.array([[0.1, 0.3, 0.2]]), k=2, exclude=[[11]])[0].tolist()
    [[12, 10]]
    """

    def _rebuild(self) -> None:
        lengths = np.linalg.norm(self._vectors, axis=1)
        self._longest = float(lengths.max(initial=0.0))

    def _read(self, folder: Any) -> None:
        self._rebuild()

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        size = rows_at_once(len(self))
        return joined([self._search_rows(queries[i : i + size], k) for i in range(0, len(queries), size)])

    def _search_rows(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self._vectors.T
        # Twice the bound of the rounding of a sum of `width` products in float32.
        slack = 2 * (queries.shape[1] + 2) * np.finfo("float32").eps * self._longest * np.linalg.norm(queries, axis=1)
        least = np.partition(scores, len(self) - k, axis=1)[:, len(self) - k] - 2 * slack
        positions, best = np.empty((len(queries), k), "int64"), np.empty((len(queries), k), "float32")
        for i, (query, row) in enumerate(zip(queries.astype("float64"), scores, strict=True)):
            among = np.flatnonzero(row >= least[i])
            # Not a product of a matrix and a vector: rows are to be added up alike.
            exact = (self._vectors[among] * query).sum(axis=1)
            order = np.argsort(-exact, kind="stable")[:k]
            positions[i], best[i] = among[order], exact[order]
        return positions, best

    def in_graph(self) -> Any:
        """The search as a `tf.Module`, which holds ids and vectors as they are now, to export with a model.

        Called as `module(queries, k, exclude=None)` with `queries` (rows, width) float32, a whole number `k`, and
        `exclude` (rows, most) of the ids' type, int64 or strings, whose empty places hold -1 or "". It gives ids and
        scores as `query` does, but "" where `query` gives None. Scores are float32 throughout, so items whose scores
        differ by rounding alone may change places.
        """
        self._require_built()
        return make_graph_index(self.ids, self.vectors)


def make_graph_index(ids: np.ndarray, vectors: np.ndarray) -> Any:
    """A `tf.Module` that finds the k best of these items; see `ExactIndex.in_graph`."""
    import tensorflow as tf

    class GraphIndex(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="index")
            is_text = ids.dtype == object
            dtype = tf.string if is_text else tf.int64
            self.empty = tf.constant("" if is_text else EMPTY, dtype)
            names = tf.constant(ids.tolist() if is_text else ids, dtype, ids.shape)
            self.ids = tf.Variable(names, trainable=False, name="ids")
            self.vectors = tf.Variable(vectors, trainable=False, name="vectors")

        def __call__(self, queries: Any, k: int, exclude: Any = None) -> tuple[Any, Any]:
            scores = tf.matmul(tf.cast(queries, tf.float32), self.vectors, transpose_b=True)
            more = 0 if exclude is None else tf.shape(exclude)[1]
            # Of equal values `top_k` gives that at the lower position first.
            scores, positions = tf.math.top_k(scores, tf.minimum(k + more, len(vectors)))
            found = tf.gather(self.ids, positions)
            if exclude is not None:
                unwanted = tf.reduce_any(found[:, :, None] == exclude[:, None, :], axis=2)
                order = tf.argsort(tf.cast(unwanted, tf.int32), axis=1, stable=True)
                unwanted = tf.gather(unwanted, order, batch_dims=1)
                found = tf.where(unwanted, self.empty, tf.gather(found, order, batch_dims=1))
                scores = tf.where(unwanted, -np.inf, tf.gather(scores, order, batch_dims=1))
            found, scores = found[:, :k], scores[:, :k]
            missing = [[0, 0], [0, k - tf.shape(found)[1]]]
            return (
                tf.ensure_shape(tf.pad(found, missing, constant_values=self.empty), (None, k)),
                tf.ensure_shape(tf.pad(scores, missing, constant_values=-np.inf), (None, k)),
            )

    return GraphIndex()
