"""Golden values by hand, agreement with public libraries, and what a list may not be."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import ndcg_score

from mtl_zoo.recommend import ranking_metrics


def value(result, name):
    return pytest.approx(result.value(name), abs=1e-6)


def test_golden_values_of_graded_gains():
    # Gains 3, 2, 3, 0, 1, 2 in places 1 to 6.
    lists, relevant, gains = [[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 4, 5]], [[3, 2, 3, 1, 2]]
    exponential = ranking_metrics(lists, relevant, gains=gains, k=(3, 6))
    assert value(exponential, "ndcg@6") == 0.948811 and value(exponential, "ndcg@3") == 0.959454
    linear = ranking_metrics(lists, relevant, gains=gains, k=6, gain="linear")
    assert value(linear, "ndcg@6") == 0.960808


def test_golden_values_of_binary_relevance():
    result = ranking_metrics([[0, 1, 2, 3, 4, 5]], [[0, 2, 5]], k=(1, 4, 6))
    assert value(result, "map@6") == 0.722222 and value(result, "map@4") == 0.555556
    assert value(result, "recall@4") == 2 / 3 and value(result, "precision@4") == 0.5
    assert value(result, "hit_rate@1") == 1 and value(result, "mrr@6") == 1
    best = 1 + 1 / np.log2(3) + 0.5
    assert value(result, "ndcg@6") == (1 + 0.5 + 1 / np.log2(7)) / best
    late = ranking_metrics([[9, 8, 0, 7]], [[0]], k=(2, 4))
    assert value(late, "mrr@4") == 1 / 3 and late.value("mrr@2") == late.value("hit_rate@2") == 0


def plain(lists, relevant, gains, k):
    """The definitions, one user and one place at a time."""
    rows = []
    for row, items, amounts in zip(lists, relevant, gains, strict=True):
        gain_of = dict(zip(items, amounts, strict=True))
        got = [gain_of.get(item, 0) for item in row[:k]]
        hits = [amount > 0 for amount in got]
        ideal = sorted(amounts, reverse=True)[:k]
        dcg, best = (sum((2**g - 1) / np.log2(j + 2) for j, g in enumerate(of)) for of in (got, ideal))
        precisions = [sum(hits[: j + 1]) / (j + 1) for j in range(k) if hits[j]]
        first = next((1 / (j + 1) for j in range(k) if hits[j]), 0)
        mean_precision = sum(precisions) / min(k, len(items))
        rows.append((sum(hits) / len(items), sum(hits) / k, any(hits), dcg / best, first, mean_precision))
    return np.array(rows, float)


def drawn_lists(users=40, items=30, places=12, seed=0):
    rng = np.random.default_rng(seed)
    lists = np.array([rng.permutation(items)[:places] for _ in range(users)])
    relevant = [rng.permutation(items)[: rng.integers(1, 9)] for _ in range(users)]
    return lists, relevant, [rng.integers(1, 5, len(row)) for row in relevant]


@pytest.mark.parametrize("k", [1, 5, 12])
def test_users_one_by_one(k):
    lists, relevant, gains = drawn_lists()
    result = ranking_metrics(lists, relevant, gains=gains, k=k)
    names = [f"{name}@{k}" for name in ("recall", "precision", "hit_rate", "ndcg", "mrr", "map")]
    np.testing.assert_allclose(result.by_user[names], plain(lists, relevant, gains, k), atol=1e-12)


def test_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    gains, scores = rng.integers(0, 4, (25, 15)), rng.random((25, 15))
    gains[:, 0] = np.maximum(gains[:, 0], 1)
    matrix = sparse.csr_matrix(gains)
    lists = np.argsort(-scores, axis=1)
    linear = ranking_metrics(lists, matrix, k=(5, 15), gain="linear")
    exponential = ranking_metrics(lists, matrix, k=(5, 15))
    for k in (5, 15):
        assert value(linear, f"ndcg@{k}") == ndcg_score(gains, scores, k=k)
        assert value(exponential, f"ndcg@{k}") == ndcg_score(2.0**gains - 1, scores, k=k)


@pytest.mark.tensorflow
def test_agrees_with_keras_rs():
    import keras_rs

    rng = np.random.default_rng(2)
    gains, scores = rng.integers(0, 4, (10, 8)), rng.random((10, 8))
    gains[:, 0] = np.maximum(gains[:, 0], 1)
    graded = ranking_metrics(np.argsort(-scores, axis=1), sparse.csr_matrix(gains), k=5)
    # List by list: over several, its mean weighs them by their gains.
    for row in range(len(gains)):
        alone = keras_rs.metrics.NDCG(k=5)
        alone.update_state(gains[row : row + 1].astype("float32"), scores[row : row + 1].astype("float32"))
        assert graded.by_user["ndcg@5"][row] == pytest.approx(float(alone.result()), abs=1e-5)
    binary = (gains > 1).astype("float32")
    binary[:, 1] = 1
    ours = ranking_metrics(np.argsort(-scores, axis=1), sparse.csr_matrix(binary), k=5)
    pairs = {"mrr@5": "MeanReciprocalRank", "precision@5": "PrecisionAtK", "recall@5": "RecallAtK"}
    for name, theirs in pairs.items():
        for row in range(len(gains)):
            metric = getattr(keras_rs.metrics, theirs)(k=5)
            metric.update_state(binary[row : row + 1], scores[row : row + 1].astype("float32"))
            assert ours.by_user[name][row] == pytest.approx(float(metric.result()), abs=1e-5), theirs
    for row, wanted in enumerate(binary.sum(axis=1)):
        metric = keras_rs.metrics.MeanAveragePrecision(k=5)
        metric.update_state(binary[row : row + 1], scores[row : row + 1].astype("float32"))
        # Theirs divides by all that is relevant, also where more is than there are places.
        ours_by_all = ours.by_user["map@5"][row] * min(5, wanted) / wanted
        assert ours_by_all == pytest.approx(float(metric.result()), abs=1e-5)


def test_users_without_relevant_items_are_left_out_and_counted():
    result = ranking_metrics([[1, 2], [1, 2], [3, 4]], [[1], [], [3]], k=2, users=["ann", "bob", "eve"])
    assert result.by_user["user"].tolist() == ["ann", "eve"]
    assert set(result.table["users"]) == {2} and set(result.table["without"]) == {1}
    with pytest.raises(ValueError, match="`relevant` must have an item for at least one user"):
        ranking_metrics([[1, 2]], [[]], k=2)


def test_short_lists_count_their_empty_places():
    result = ranking_metrics([[1, -1, -1], [4, 5, 6]], [[1], [6]], k=3)
    assert result.by_user["precision@3"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert "1 lists shorter than 3" in result.table["note"][0]
    strings = ranking_metrics([["a", None]], [["a", "b"]], k=2)
    assert strings.value("recall@2") == 0.5


def test_seen_items_are_taken_out_of_both():
    result = ranking_metrics([[1, 2, 3]], [[1, 3]], seen=[[1, 9]], k=(1, 3))
    assert result.value("recall@3") == 1 and value(result, "mrr@3") == 0.5
    assert "1 of the lists, 1 of the relevant" in result.table["note"][0]
    same = ranking_metrics([[2, 3, -1]], [[3]], k=(1, 3))
    assert result.table["value"].tolist() == same.table["value"].tolist()


def test_a_matrix_is_the_same_as_arrays():
    lists, relevant, gains = drawn_lists()
    rows = np.repeat(np.arange(len(lists)), [len(row) for row in relevant])
    matrix = sparse.csr_matrix((np.concatenate(gains), (rows, np.concatenate(relevant))))
    first, second = ranking_metrics(lists, relevant, gains=gains, k=5), ranking_metrics(lists, matrix, k=5)
    np.testing.assert_allclose(first.by_user.iloc[:, 1:].to_numpy(float), second.by_user.iloc[:, 1:].to_numpy(float))


def test_any_ids_will_do():
    lists, relevant, gains = drawn_lists()
    words = ranking_metrics(lists.astype(str).astype(object), [row.astype(str) for row in relevant], gains=gains, k=5)
    assert words.table["value"].tolist() == ranking_metrics(lists, relevant, gains=gains, k=5).table["value"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recommended": [[1, 1]]}, "`recommended` must name an id once.*1 users with an id twice.*row 0.*1"),
        ({"relevant": [[1, 1]]}, "`relevant` must name an id once"),
        ({"recommended": [[-1, 1]]}, "`recommended` must have its empty places at the end.*row 0"),
        ({"recommended": [1, 2]}, r"`recommended` must hold one list of ids a user.*\(2,\)"),
        ({"recommended": [[1.0, 2.0]]}, "`recommended` must hold ids: whole numbers or strings.*float64"),
        ({"recommended": [["a", "b"]]}, "must hold ids of the kind that the others have"),
        ({"k": 3}, "at least the largest k, 3.*Received: 2"),
        ({"k": ()}, "`k` must hold at least one"),
        ({"k": 0}, "`k` must be a whole number >= 1"),
        ({"relevant": [[1], [2]]}, "one array of ids a user, 1. Received: 2"),
        ({"relevant": sparse.csr_matrix((3, 3))}, "one row a user, 1. Received: 3"),
        ({"relevant": 3}, "`relevant` must be a list of arrays"),
        ({"gains": [[1, 2]]}, "`gains` must have one number for each"),
        ({"gains": [[0.0]]}, "`gains` must have gains that are > 0"),
        ({"catalogue": [1]}, r"`recommended` must hold ids of the catalogue. Received: 1 others, \[2\]"),
        ({"catalogue": [1, 2], "relevant": [[7]]}, "`relevant` must hold ids of the catalogue"),
        ({"gain": "square"}, "`gain` must be one of the known values"),
        ({"users": ["a", "b"]}, "`users` must name each of the 1 rows once"),
    ],
)
def test_errors(arguments, message):
    arguments = {"recommended": [[1, 2]], "relevant": [[1]], "k": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        ranking_metrics(arguments.pop("recommended"), arguments.pop("relevant"), **arguments)


def test_intervals_by_user():
    lists, relevant, _ = drawn_lists(users=60)
    result = ranking_metrics(lists, relevant, k=5)
    found = result.interval("recall@5", resamples=300)
    assert found.low < found.value == result.value("recall@5") < found.high
    # Users in another order are matched by name, so that equal lists differ by nothing.
    order = np.random.default_rng(0).permutation(60)
    other = ranking_metrics(lists[order], [relevant[i] for i in order], k=5, users=order)
    assert tuple(result.difference(other, "recall@5", resamples=50)) == (0, 0, 0)
    with pytest.raises(ValueError, match="`other` must be of the same users. Received: 1 users"):
        result.difference(ranking_metrics(lists[1:], relevant[1:], k=5, users=np.arange(1, 60)), "recall@5")
    with pytest.raises(ValueError, match="`metric` must be one of the known values"):
        result.value("recall@6")
    with pytest.raises(ValueError, match="`task` must be one of the known values"):
        result.value("recall@5", "buy")
