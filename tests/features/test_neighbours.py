"""Neighbours in a graph, against dense adjacency matrices in NumPy."""

import logging
import time

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Neighbours, Numeric, Sequence, SharedBottom
from mtl_zoo.features.cache import transform_hash
from mtl_zoo.layers import FeatureEmbedding

pytestmark = pytest.mark.tensorflow
CLICK = BinaryTask("click")
NODES = 12


def random_edges(count=40, seed=0, weighted=True):
    rng = np.random.default_rng(seed)
    edges = pd.DataFrame({"source": rng.integers(0, NODES, count), "target": rng.integers(0, NODES, count)})
    return edges.assign(weight=rng.integers(1, 5, count) * 1.0) if weighted else edges


def dense(edges, symmetric=False, self_loops=False, nodes=NODES):
    """The adjacency matrix: each edge once, with its largest weight."""
    matrix = np.zeros((nodes, nodes))
    for source, target, weight in edges.itertuples(index=False):
        if source != target or self_loops:
            matrix[source, target] = max(matrix[source, target], weight)
    return np.maximum(matrix, matrix.T) if symmetric else matrix


def fitted(edges, ids=range(NODES), dim=3, **options):
    """A transform whose ids are the nodes in their order."""
    features = [
        Categorical("user", dim=dim, vocabulary=tuple(ids)),
        Neighbours("friends", of="user", edges=edges, **{"length": NODES, **options}),
    ]
    return FeatureTransform(features, CLICK).fit(pd.DataFrame({"user": list(ids), "click": np.arange(len(ids)) % 2}))


def pooled(transform, nodes):
    """The vectors of nodes, and the table that they are made of."""
    layer = FeatureEmbedding(transform.features)
    vectors = layer(transform.encode({"user": np.asarray(nodes)}))
    (table,) = layer.tables
    return ops.convert_to_numpy(vectors["friends"]), ops.convert_to_numpy(table)[2 : 2 + NODES]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
def test_means_are_those_of_the_adjacency_matrix(symmetric, self_loops):
    edges, nodes = random_edges(), np.arange(NODES)
    options = {"symmetric": symmetric, "self_loops": self_loops}
    a = dense(edges, **options)
    for pooling, weights in (("mean", a > 0), ("weighted", a)):
        vectors, table = pooled(fitted(edges, pooling=pooling, **options), nodes)
        whole = weights.sum(1, keepdims=True)
        np.testing.assert_allclose(vectors, weights @ table / np.where(whole > 0, whole, 1), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_lightgcn_is_the_mean_of_its_layers(layers):
    edges = random_edges(30)
    a = dense(edges, symmetric=True)
    scale = 1 / np.sqrt(np.maximum(a.sum(1), 1e-9))
    normal = scale[:, None] * a * scale[None, :]
    np.testing.assert_allclose(normal, normal.T)
    assert np.abs(np.linalg.eigvalsh(normal)).max() <= 1 + 1e-9
    transform = fitted(edges, pooling="lightgcn", layers=layers, symmetric=True)
    vectors, table = pooled(transform, np.arange(NODES))
    e, total = table, table
    for _ in range(layers):
        e = normal @ e
        total = total + e
    np.testing.assert_allclose(vectors, total / (layers + 1), atol=1e-6)
    if layers == 0:
        np.testing.assert_allclose(vectors, table, atol=1e-7)


def test_lightgcn_of_directed_edges_and_of_blocks(monkeypatch):
    from mtl_zoo.features import _graph

    edges = random_edges(50, seed=3)
    a = dense(edges)
    out, into = (np.sqrt(np.where(s > 0, s, 1)) for s in (a.sum(1), a.sum(0)))
    normal = a / out[:, None] / into[None, :]
    wanted = (np.eye(NODES) + normal + normal @ normal) / 3
    whole = fitted(edges, pooling="lightgcn", layers=2)
    vectors, table = pooled(whole, np.arange(NODES))
    np.testing.assert_allclose(vectors, wanted @ table, atol=1e-6)
    monkeypatch.setattr(_graph, "_STEPS_AT_A_TIME", 10)
    in_pieces = fitted(edges, pooling="lightgcn", layers=2)
    for array in ("starts", "targets", "weights"):
        np.testing.assert_array_equal(
            getattr(in_pieces.features[1].graph, array), getattr(whole.features[1].graph, array)
        )


def test_an_isolated_node_keeps_its_own_share():
    edges = pd.DataFrame({"source": [0], "target": [1]})
    vectors, table = pooled(fitted(edges, pooling="lightgcn", layers=3, symmetric=True), [5])
    np.testing.assert_allclose(vectors, table[[5]] / 4, atol=1e-7)
    vectors, _ = pooled(fitted(edges), [5, 0])
    assert not vectors[0].any() and vectors[1].any()


def test_a_graph_without_edges_gives_zeros():
    transform = fitted(pd.DataFrame({"source": [3], "target": [3]}), pooling="weighted")
    table = {"user": np.arange(NODES)}
    assert not transform.encode(table)["friends"].any()
    found = transform.encode_in_graph(transform.raw_arrays(table))
    assert not found["friends"].numpy().any() and not found["friends.weights"].numpy().any()


@pytest.mark.parametrize(
    "options", [{}, {"pooling": "weighted"}, {"pooling": "lightgcn", "layers": 2}, {"keep": "sample", "length": 2}]
)
def test_the_order_of_edges_and_padding_do_not_matter(options):
    edges, table = random_edges(60, seed=1), pd.DataFrame({"user": np.arange(NODES)})
    first = fitted(edges, **options)
    again = fitted(pd.concat([edges.sample(frac=1, random_state=0), edges.iloc[:7]]), **options)
    for name, array in first.encode(table).items():
        np.testing.assert_allclose(again.encode(table)[name], array, rtol=1e-6)
    layer = FeatureEmbedding(first.features)
    x = first.encode(table)
    vectors = ops.convert_to_numpy(layer(x)["friends"])
    padded = {**x, **{n: np.pad(x[n], ((0, 0), (0, 4))) for n in x if n.startswith("friends")}}
    np.testing.assert_allclose(ops.convert_to_numpy(layer(padded)["friends"]), vectors, atol=1e-6)
    order = np.random.default_rng(0).permutation(x["friends"].shape[1])
    shuffled = {**x, **{n: x[n][:, order] for n in x if n.startswith("friends")}}
    np.testing.assert_allclose(ops.convert_to_numpy(layer(shuffled)["friends"]), vectors, atol=1e-6)


def test_the_heaviest_are_kept_and_ties_go_by_id():
    edges = pd.DataFrame({"source": [0] * 5, "target": [5, 4, 3, 2, 1], "weight": [1.0, 9.0, 1.0, 1.0, 1.0]})
    kept = fitted(edges, length=3).encode({"user": [0]})["friends"]
    assert kept.tolist() == [[3, 4, 6]]  # id 2 + node: the heaviest, and two of the others by id
    plain = fitted(edges.drop(columns="weight"), length=2).encode({"user": [0]})["friends"]
    assert plain.tolist() == [[3, 4]]


def test_a_sample_is_drawn_by_its_seed():
    edges = pd.DataFrame({"source": 0, "target": np.arange(1, NODES)})
    samples = [fitted(edges, length=3, keep="sample", seed=seed).encode({"user": [0]})["friends"] for seed in range(20)]
    again = fitted(edges, length=3, keep="sample", seed=7).encode({"user": [0]})["friends"]
    np.testing.assert_array_equal(samples[7], again)
    assert all(len(set(s[0])) == 3 and (s >= 3).all() for s in samples)
    assert len({tuple(sorted(s[0])) for s in samples}) > 10
    assert set(np.concatenate(samples).ravel()) == set(range(3, NODES + 2))


def test_nodes_that_the_vocabulary_lacks(caplog):
    edges = pd.DataFrame({"source": ["a", "new", "b", "newer"], "target": ["b", "a", "new", "new"]})
    features = [Categorical("user", dim=3), Neighbours("friends", of="user", edges=edges, length=2)]
    rows = pd.DataFrame({"user": ["a", "b"]})
    with caplog.at_level(logging.WARNING):
        transform = FeatureTransform(features).fit(rows)
    assert "`friends`: 3 of 4 edges have an end that the training table lacks, of 2 such nodes" in caplog.text
    table = {"user": ["a", "new", "b", "newer", "nobody", None]}
    arrays = transform.encode(table)
    assert arrays["friends"].tolist() == [[3, 0], [2, 0], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert (transform.unseen["friends"].count, transform.unseen["friends"].values) == (1, ("nobody",))
    found = transform.encode_in_graph(transform.raw_arrays(table))["friends"]
    np.testing.assert_array_equal(found.numpy(), arrays["friends"])
    both = FeatureTransform([features[0], Neighbours("f", of="user", edges=edges, length=2, symmetric=True)]).fit(rows)
    assert both.encode(table)["f"].tolist() == [[3, 0], [2, 3], [2, 0], [0, 0], [0, 0], [0, 0]]
    strict = [features[0], Neighbours("friends", of="user", edges=edges, length=2, unknown="raise")]
    with pytest.raises(ValueError, match="`edges` must join ids.*3 of 4 edges of 2 others, \\['new', 'newer'\\]"):
        FeatureTransform(strict).fit(rows)


def test_lightgcn_reaches_a_new_node_through_those_that_were_there():
    edges = pd.DataFrame({"source": [0, 1, 99], "target": [1, 2, 0], "weight": [1.0, 4.0, 3.0]})
    transform = fitted(edges, pooling="lightgcn", layers=2, symmetric=True)
    a = dense(edges.iloc[:2], symmetric=True)
    s = a.sum(1)
    normal = a / np.sqrt(np.where(s > 0, s, 1))[:, None] / np.sqrt(np.where(s > 0, s, 1))
    row = np.eye(NODES)[0] * 3 / np.sqrt(3 * s[0])
    vectors, table = pooled(transform, [99])
    np.testing.assert_allclose(vectors[0], (row + row @ normal) @ table / 3, atol=1e-6)


def test_the_table_is_that_of_the_feature_it_is_of():
    edges = random_edges()
    features = [
        Neighbours("friends", of="user", edges=edges),
        Categorical("user", column="user_id", dim=5, key="people", min_count=2, max_ids=9),
        Neighbours("fans", of="people", column="user_id", edges=edges[["target", "source"]]),
        Sequence("seen", size=6, dim=2),
    ]
    rows = pd.DataFrame({"user_id": [*range(NODES), *range(6)], "seen": [[1]] * (NODES + 6)})
    transform = FeatureTransform(features).fit(rows)
    friends, user, fans, _ = transform.features
    assert (friends.table, friends.dim, friends.num_ids, friends.source) == ("people", 5, 8, "user_id")
    assert friends.num_ids == user.num_ids == fans.num_ids  # seen twice: what the neighbours read counts no second time
    layer = FeatureEmbedding(transform.features)
    layer(transform.encode(rows))
    assert sorted(table.shape[1] for table in layer.tables) == [2, 5]
    assert transform.columns == ("user_id", "seen")


def test_what_differs_from_its_feature_is_refused():
    edges = random_edges()
    user = Categorical("user", dim=4)
    with pytest.raises(ValueError, match="`dim` must be the same.*Received: user.dim=4, friends.dim=8"):
        FeatureTransform([user, Neighbours("friends", of="user", edges=edges, dim=8)])
    with pytest.raises(ValueError, match="`of` must name a feature whose values are ids. Received: of='age'"):
        FeatureTransform([Numeric("age"), Neighbours("friends", of="age", edges=edges)])
    with pytest.raises(ValueError, match="`edges` must be given to fit feature 'friends'"):
        fitted(None)
    with pytest.raises(ValueError, match="`keep` must be 'heaviest' with pooling='lightgcn'"):
        Neighbours("friends", of="user", keep="sample", pooling="lightgcn")
    for wrong in ({"pooling": "max"}, {"layers": -1}, {"length": 0}, {"unknown": "drop"}, {"keep": "all"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            Neighbours("friends", of="user", **wrong)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"source": [1]}, "lacks 1 columns. Received without: \\['target'\\]"),
        (
            {"source": [1, None], "target": [1, 2]},
            "`edges.source` must name a node in every row, for feature 'friends'",
        ),
        ({"source": ["1"], "target": ["2"]}, "`edges.source` must hold whole numbers, as the ids of feature 'friends'"),
        ({"source": [1.5], "target": [2.0]}, "`edges.source` must hold whole numbers"),
        ({"source": [1], "target": [2], "weight": [0.0]}, "`edges.weight` must hold finite numbers above 0.*\\[0.0\\]"),
        ({"source": [1], "target": [2], "weight": [np.inf]}, "`edges.weight` must hold finite numbers above 0"),
        ({"source": [1], "target": [[2]]}, "`edges.target` holds lists"),
    ],
)
def test_edges_that_cannot_be_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        fitted(pd.DataFrame(edges))


def test_edges_are_saved_and_decide_the_hash(tmp_path):
    edges = random_edges()
    transform = fitted(edges, pooling="lightgcn", symmetric=True)
    rows = pd.DataFrame({"user": [3, 50, 1]})
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(rows, verbose=0)["click"], model.predict(rows, verbose=0)["click"])
    assert transform_hash(loaded.transform) == transform_hash(transform)
    assert transform_hash(fitted(edges.iloc[:-5], pooling="lightgcn", symmetric=True)) != transform_hash(transform)
    refitted = FeatureTransform(loaded.transform.specs, CLICK).fit({"user": range(NODES), "click": [0, 1] * 6})
    np.testing.assert_array_equal(refitted.encode(rows)["friends"], transform.encode(rows)["friends"])


def test_neighbours_learn_with_the_table_they_share():
    edges = random_edges(weighted=False)
    transform = fitted(edges, symmetric=True)
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.compile("sgd", run_eagerly=True, metrics=None)
    table = pd.DataFrame({"user": [0], "click": [1]})
    before = ops.convert_to_numpy(model.get_layer("embedding").tables[0])
    model.fit(table, verbose=0)
    moved = np.abs(ops.convert_to_numpy(model.get_layer("embedding").tables[0]) - before).max(1) > 0
    friends = set(np.flatnonzero(dense(edges.assign(weight=1.0), symmetric=True)[0]) + 2)
    assert set(np.flatnonzero(moved)) == {2} | friends


@pytest.mark.slow
def test_ten_million_edges_take_seconds_and_bounded_memory():
    import resource

    rng = np.random.default_rng(0)
    nodes, count = 1_000_000, 10_000_000
    source = rng.integers(0, nodes, count, dtype=np.int64)
    target = (source + np.minimum(rng.geometric(0.00002, count), 500_000)) % nodes
    source[-1_000_000:], target[-1_000_000:] = source[:1_000_000], target[:1_000_000]  # duplicates
    target[::50] = source[::50]
    edges = pd.DataFrame({"source": source, "target": target, "weight": rng.random(count, dtype=np.float32) + 0.1})
    rows = pd.DataFrame({"user": np.arange(nodes)})
    features = [Categorical("user", size=nodes), Neighbours("friends", of="user", edges=edges, length=20)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    transform = FeatureTransform(features).fit(rows)
    seconds = time.process_time() - started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    graph = transform.features[1].graph
    assert (np.diff(graph.starts) <= 20).all()
    owners = np.repeat(np.arange(nodes + 2), np.diff(graph.starts))
    assert (owners != graph.targets).all()
    assert len(np.unique(owners * (nodes + 2) + graph.targets)) == len(graph.targets)
    assert seconds < 60 and megabytes < 2000, f"{seconds:.1f} s of a core, {megabytes:.0f} MB above the table of edges"
