"""A graph of ids as lists of neighbours: built once from a list of edges, then read by row."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.features._columns import STRING, Cells, Column, check_columns, read_table, refuse_values
from mtl_zoo.features.requests import FIRST_ID, UNKNOWN_ID
from mtl_zoo.features.vocabularies import Listed, Vocabulary, look_up

logger = logging.getLogger(__name__)

# Steps that products of a graph with itself take at a time: each holds a number and an id, some 16 bytes.
_STEPS_AT_A_TIME = 20_000_000


@dataclasses.dataclass(frozen=True)
class Rules:
    """How a list of edges becomes a graph; see `Neighbours`."""

    length: int
    layers: int | None
    sampled: bool
    seed: int
    symmetric: bool
    self_loops: bool
    unknown: str


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The neighbours of each node, at most `length` of them, one row an edge.

    Nodes are the ids of a vocabulary and, from `num_ids` on, nodes that it lacks, which have neighbours and are none.

    Args:
        starts: int64 (nodes + 1): the edges of node i are starts[i] .. starts[i + 1] - 1.
        targets: int32 (edges): the neighbours, as ids.
        weights: float32 (edges).
        strangers: The nodes that the vocabulary lacks.
        num_ids: Of the vocabulary.
        length: The most neighbours that a node has.
    """

    starts: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    strangers: Listed
    num_ids: int
    length: int

    def nodes_of(self, ids: np.ndarray, strangers: np.ndarray) -> np.ndarray:
        """Nodes from ids in the vocabulary and, where that lacks a value, among the strangers."""
        beyond = (ids == UNKNOWN_ID) & (strangers >= FIRST_ID)
        return np.where(beyond, strangers + (self.num_ids - FIRST_ID), ids)

    def neighbours_of(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, weights) of the neighbours of each node, (n, length) padded right with 0."""
        if not len(self.targets):
            shape = (len(nodes), self.length)
            return np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        starts = self.starts[nodes]
        places = starts[:, None] + np.arange(self.length)
        real = places < self.starts[nodes + 1][:, None]
        places = np.where(real, places, 0)
        return np.where(real, self.targets[places], 0), np.where(real, self.weights[places], np.float32(0))

    def digest(self) -> str:
        """A hash of all neighbours and weights."""
        digest = hashlib.sha256(str(self.strangers.identity()).encode())
        for array in (self.starts, self.targets, self.weights):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def in_graph(self, vocabulary: Any) -> Any:
        """A `tf.Module` from raw ids to (ids, weights) of neighbours; `vocabulary` is a vocabulary in graph form."""
        return _make_module(self, vocabulary)


def _make_module(graph: Graph, vocabulary: Any) -> Any:
    import tensorflow as tf

    class GraphInGraph(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="neighbours")
            self.strangers = graph.strangers.in_graph() if len(graph.strangers.values) else None
            # One edge at least, since the place of one that is not there is read, too.
            targets, weights = graph.targets, graph.weights
            if not len(targets):
                targets, weights = np.zeros(1, np.int32), np.zeros(1, np.float32)
            with tf.device("CPU:0"):
                self.starts, self.targets, self.weights = (
                    tf.Variable(array, trainable=False, name=name)
                    for name, array in (("starts", graph.starts), ("targets", targets), ("weights", weights))
                )

        def __call__(self, raw: Any) -> tuple[Any, Any]:
            nodes = look_up(vocabulary, raw)
            if self.strangers is not None:
                beyond = look_up(self.strangers, raw)
                is_stranger = (nodes == UNKNOWN_ID) & (beyond >= FIRST_ID)
                nodes = tf.where(is_stranger, beyond + (graph.num_ids - FIRST_ID), nodes)
            places = tf.gather(self.starts, nodes)[:, None] + tf.range(graph.length, dtype=tf.int64)
            real = places < tf.gather(self.starts, nodes + 1)[:, None]
            places = tf.where(real, places, tf.zeros_like(places))
            ids = tf.where(real, tf.gather(self.targets, places), 0)
            return ids, tf.where(real, tf.gather(self.weights, places), 0.0)

    return GraphInGraph()


def build(name: str, edges: Any, vocabulary: Vocabulary, rules: Rules) -> Graph:
    """The graph of a list of edges over the ids of a vocabulary.

    Args:
        name: Of the feature, for errors and logs.
        edges: A table with the columns `source`, `target` and, if there are any, `weight`.
        vocabulary: Of the nodes.
        rules: How.

    Raises:
        ValueError: A column is missing or holds other ids than the vocabulary; an edge has no end, or a weight that is
            not above 0; an end is unknown, with unknown="raise".
    """
    source, target, weight, strangers = _read(name, edges, vocabulary, rules)
    num_ids, num_nodes = vocabulary.num_ids, vocabulary.num_ids + len(strangers.values)
    if not rules.self_loops:
        other = source != target
        source, target, weight = source[other], target[other], None if weight is None else weight[other]
    if rules.symmetric:
        source, target = np.concatenate([source, target]), np.concatenate([target, source])
        weight = None if weight is None else np.concatenate([weight, weight])
    inside = target < num_ids
    source, target, weight = source[inside], target[inside], None if weight is None else weight[inside]
    source, target, weight = _without_duplicates(source, target, weight, num_nodes)
    if rules.layers is not None:
        starts, targets, weights = _propagated(name, source, target, weight, num_ids, num_nodes, rules)
    else:
        starts, targets, weights = _kept(source, target, weight, num_nodes, rules)
    return Graph(starts, targets.astype(np.int32), weights.astype(np.float32), strangers, num_ids, rules.length)


def _read(
    name: str, edges: Any, vocabulary: Vocabulary, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Listed]:
    """The ends of each edge as nodes, its weight, and the nodes that the vocabulary lacks."""
    frame = read_table(edges)
    check_columns(frame, ["source", "target"])
    known_is_text = getattr(vocabulary, "is_text", None)
    cells: list[Cells] = []
    for end in ("source", "target"):
        found = Column(f"edges.{end}", frame[end]).cells()
        shown = frame[end].to_numpy(dtype=object) if (found.codes < 0).any() else found.codes
        refuse_values(found.column, f"must name a node in every row, for feature {name!r}", found.codes < 0, shown)
        if known_is_text is not None and known_is_text != (found.kind == STRING):
            kind = "strings" if known_is_text else "whole numbers"
            raise ValueError(
                f"`{found.column}` must hold {kind}, as the ids of feature {name!r} are. Received: "
                f"{check.sample_values(found.values[:6])}"
            )
        cells.append(found)
    weight = None
    if "weight" in frame.columns:
        weight = Column("edges.weight", frame["weight"]).numbers()
        odd = ~((weight > 0) & np.isfinite(weight))
        refuse_values("edges.weight", f"must hold finite numbers above 0, for feature {name!r}", odd, weight)
    is_text = cells[0].kind == STRING
    ids = [vocabulary.ids(found) for found in cells]
    new = [(f.as_text() if is_text else f.whole_numbers())[i == UNKNOWN_ID] for f, i in zip(cells, ids, strict=True)]
    codes, distinct = pd.factorize(np.concatenate(new))
    strangers = Listed(np.asarray(distinct, dtype=object if is_text else np.int64))
    nodes = []
    for found, of_values in zip(cells, ids, strict=True):
        of_values = of_values.astype(np.int64)
        unknown = of_values == UNKNOWN_ID
        count = int(unknown.sum())
        of_values[unknown], codes = codes[:count] + vocabulary.num_ids, codes[count:]
        nodes.append(of_values[found.codes])
    _tell_of_strangers(name, nodes, strangers, vocabulary.num_ids, rules.unknown)
    return nodes[0], nodes[1], weight, strangers


def _tell_of_strangers(name: str, ends: list[np.ndarray], strangers: Listed, num_ids: int, unknown: str) -> None:
    if not len(strangers.values):
        return
    count = int(((ends[0] >= num_ids) | (ends[1] >= num_ids)).sum())
    sample = check.sample_values(strangers.values[:6])
    if unknown == "raise":
        raise ValueError(
            f"`edges` must join ids that the training table holds, since unknown='raise' for feature {name!r}. "
            f"Received: {count:,} of {len(ends[0]):,} edges of {len(strangers.values):,} others, {sample}"
        )
    logger.warning(
        "`%s`: %d of %d edges have an end that the training table lacks, of %d such nodes, for example %s; these nodes "
        "are no one's neighbours",
        name, count, len(ends[0]), len(strangers.values), sample,
    )  # fmt: skip


def _without_duplicates(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray | None, num_nodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each edge once, in order, with the largest of its weights."""
    key = source * num_nodes + target
    if weight is None:
        key = np.unique(key)
        weight = np.ones(len(key))
    else:
        order = np.argsort(key)
        key, weight = key[order], weight[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        key, weight = key[first], np.maximum.reduceat(weight, first) if len(first) else weight
    return key // num_nodes, key % num_nodes, weight


def _starts(source: np.ndarray, num_nodes: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(source, minlength=num_nodes))]).astype(np.int64)


def _kept(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, num_nodes: int, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `length` neighbours of each node: the heaviest, those of equal weight by id, or a sample."""
    degrees = np.bincount(source, minlength=num_nodes)
    crowded = degrees > rules.length
    if crowded.any():
        keep = ~crowded[source]
        at = np.flatnonzero(~keep)
        rank = np.random.default_rng(rules.seed).random(len(at)) if rules.sampled else -weight[at]
        order = at[np.lexsort((rank, source[at]))]  # stable, so equal ranks stay in the order of ids
        place = np.arange(len(at)) - (np.cumsum(degrees * crowded) - degrees * crowded)[source[order]]
        keep[order[place < rules.length]] = True
        source, target, weight = source[keep], target[keep], weight[keep]
    return _starts(source, num_nodes), target, weight


def _propagated(
    name: str,
    source: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    num_ids: int,
    num_nodes: int,
    rules: Rules,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `length` largest weights of each node in 1 / (K + 1) sum_{k=0..K} A^k, A being the normalised adjacency."""
    from scipy import sparse

    layers = rules.layers or 0
    known = source < num_ids
    out = np.bincount(source, weights=weight, minlength=num_nodes)
    into = np.bincount(target[known], weights=weight[known], minlength=num_ids)
    into[into == 0] = 1.0  # of nodes that strangers alone point to
    scaled = weight / np.sqrt(out[source] * into[target])
    first = sparse.csr_array((scaled, (source, target)), shape=(num_nodes, num_ids))
    step = first[:num_ids]
    own = sparse.csr_array(
        (np.ones(num_ids - FIRST_ID), (np.arange(FIRST_ID, num_ids),) * 2), shape=(num_nodes, num_ids)
    )
    counts, targets, weights, kept, whole = [], [], [], 0.0, 0.0
    for start, stop in _blocks(first, step, layers):
        reached = first[start:stop] if layers else None
        total = own[start:stop]
        for layer in range(layers):
            reached = reached @ step if layer else reached
            total = total + reached
        found = total.tocoo()
        order = np.lexsort((found.col, found.row))
        rows, columns, values = found.row[order].astype(np.int64), found.col[order], found.data[order]
        cut, ids, sizes = _kept(rows, columns, values, stop - start, rules)
        counts.append(np.diff(cut))
        targets.append(ids)
        weights.append(sizes / (layers + 1))
        kept, whole = kept + float(sizes.sum()), whole + float(values.sum())
    if kept < whole * (1 - 1e-6):
        logger.info(
            "`%s`: length=%d keeps %.1f%% of the weight of all neighbours", name, rules.length, 100 * kept / whole
        )
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return starts, np.concatenate(targets), np.concatenate(weights)


def _blocks(first: Any, step: Any, layers: int) -> list[tuple[int, int]]:
    """Ranges of nodes whose walks of all lengths up to `layers` can be held at once."""
    pattern = step.copy()
    pattern.data = np.ones_like(pattern.data)
    walks, most = np.ones(step.shape[0]), np.ones(first.shape[0])
    for _ in range(layers):
        reach = first.copy()
        reach.data = np.ones_like(reach.data)
        most = most + reach @ walks
        walks = pattern @ walks
    ends = np.cumsum(most)
    bounds = [0]
    while bounds[-1] < len(ends):
        done = ends[bounds[-1] - 1] if bounds[-1] else 0.0
        bounds.append(max(int(np.searchsorted(ends, done + _STEPS_AT_A_TIME)), bounds[-1] + 1))
    return list(itertools.pairwise(bounds))
