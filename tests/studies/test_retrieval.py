"""The studies of retrieval and of indexes, on a few rows."""

import argparse

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import indexes, retrieval
from benchmarks.studies._frame import Rows as KeptRows
from benchmarks.studies.retrieval import BASE, METRICS, Rows, best_of, differences, item_knn, popularity
from mtl_zoo import BinaryTask, Categorical, FeatureTransform


@pytest.fixture(scope="module")
def rows():
    """Two groups of users, each of which likes its own half of the films."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user_id": rng.integers(0, 40, 900), "movie_id": rng.integers(0, 80, 900)}).drop_duplicates()
    table["like"] = (table["user_id"] % 2 == table["movie_id"] % 2).astype(float)
    table["rating"] = np.where(table["like"] == 1, 5.0, 1.0)
    for name in (*retrieval.USER[1:], *retrieval.ITEM[1:]):
        table[name] = "x"
    test = table.sample(200, random_state=0)
    train = table.drop(test.index)
    specs = [Categorical("user_id", side="user", dim=8), Categorical("movie_id", side="item", dim=8)]
    return Rows(train, train, test, FeatureTransform(specs, [BinaryTask("like")]).fit(train))


def test_the_best_that_were_not_seen():
    films = np.array([7, 8, 9])
    lists = best_of(np.array([[1.0, 3, 2], [3, 2, 3]]), films, [np.array([8]), np.array([99])], k=2)
    assert lists.tolist() == [[9, 7], [7, 9]]


def test_popularity_and_neighbours(rows):
    counts = rows.train[rows.train["like"] == 1]["movie_id"].value_counts()
    users = np.array([3, 4])
    first = popularity(rows)(users)[:, 0]
    for user, film in zip(users, first, strict=True):
        seen = set(rows.train.loc[rows.train["user_id"] == user, "movie_id"])
        assert counts[film] == counts.drop(seen, errors="ignore").max()
    assert rows.judged(item_knn(rows)).value("recall@10") > rows.judged(popularity(rows)).value("recall@10") + 0.1


@pytest.mark.slow
@pytest.mark.tensorflow
def test_every_method_is_judged(rows, monkeypatch, tmp_path):
    options = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01, "temperature": 0.2, "no_examples": False}
    args = argparse.Namespace(data="toy", split="user", **options)
    smaller = {name: (made, 128, 5, environ) for name, (made, _, _, environ) in retrieval.EXAMPLES.items()}
    monkeypatch.setattr(retrieval, "EXAMPLES", smaller)
    monkeypatch.setattr(retrieval, "FETCHED", 40)
    monkeypatch.setattr(Rows, "of", lambda *_: rows)
    kept = KeptRows(tmp_path / "rows.csv", retrieval.COLUMNS)
    results = retrieval.run_seed(args, 0, kept)
    table = kept.read().set_index("method")
    assert len(table) == 13 and table.loc[["example as in keras-rs", BASE], "ndcg@10"].gt(0).all()
    made = table[[name.startswith("example") for name in table.index]].astype({"rmse": float})
    assert made["rmse"].lt(2.5).all() and made["epochs"].eq(5).all(), "stars are 1 and 5: of a constant, 2"
    assert table.loc["retrieval alone", "recall@10"] > table.loc["popularity", "recall@10"]
    apart = pd.DataFrame(differences(results, 0, 50))
    assert len(apart) == 12 * len(METRICS) and (apart["low"] <= apart["high"]).all()


def test_an_index_is_measured():
    row = indexes.measured("exact", "grouped", 500, 8, 20)
    assert row["recall"] == 1 and row["build_seconds"] >= 0 and row["ms_one"] > 0
    assert indexes.measured("hnsw-256", "even", 500, 8, 20)["recall"] > 0.99
