import dataclasses
import gzip

import numpy as np
import pytest

from mtl_zoo.datasets import load_dataset, movielens, verify_dataset
from mtl_zoo.datasets.movielens import GENRES_100K, user_split

USERS, MOVIES, RATINGS = 6, 12, 300
TITLES = ["Toy Story (1995)", "Léon: The Professional (1994)", "Fargo (film) (1996)"]


def make_ratings(seed=0):
    rng = np.random.default_rng(seed)
    users = rng.integers(1, USERS + 1, RATINGS)
    movies = rng.integers(1, MOVIES + 1, RATINGS)
    return np.stack([users, movies, rng.integers(1, 6, RATINGS), rng.permutation(RATINGS) + 880_000_000], 1)


def counts_of(ratings):
    return movielens._Counts(USERS, MOVIES, tuple(int((ratings[:, 2] == s).sum()) for s in range(1, 6)))


def lines(rows, separator):
    return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode("latin-1")


@pytest.fixture
def ratings():
    return make_ratings()


@pytest.fixture
def folder_100k(tmp_path, monkeypatch, ratings):
    folder = tmp_path / "movielens_100k" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "u.data").write_bytes(lines(ratings, "\t"))
    (folder / "u.user").write_bytes(lines([(u, 20 + u, "MF"[u % 2], "writer", f"T8H{u}") for u in range(1, 7)], "|"))
    items = []
    for m in range(1, MOVIES + 1):
        flags = [int(g in (m, m + 3)) for g in range(len(GENRES_100K))]
        items.append((m, TITLES[m % 3], "01-Jan-1995" if m > 1 else "", "", "http://x", *flags))
    (folder / "u.item.gz").write_bytes(gzip.compress(lines(items, "|")))
    monkeypatch.setattr(movielens, "COUNTS_100K", counts_of(ratings))
    return tmp_path


@pytest.fixture
def folder_1m(tmp_path, monkeypatch, ratings):
    folder = tmp_path / "movielens_1m"
    folder.mkdir()
    (folder / "users.dat").write_bytes(lines([(u, "MF"[u % 2], 25, u, f"{u}8067") for u in range(1, 7)], "::"))
    genres = ["Animation|Children's|Comedy", "Drama", "Sci-Fi|War"]
    movies = [(m, TITLES[m % 3], genres[m % 3]) for m in range(1, MOVIES + 1)]
    (folder / "movies.dat").write_bytes(lines(movies, "::"))
    (folder / "ratings_no_timestamp.csv").write_bytes(b"user_id,movie_id,rating\n" + lines(ratings[:, :3], ","))
    monkeypatch.setattr(movielens, "COUNTS_1M", counts_of(ratings))
    return tmp_path


def test_100k_splits_by_time(folder_100k, ratings):
    data = load_dataset("movielens_100k", folder_100k)
    assert [len(split) for split in data.splits.values()] == [240, 30, 30]
    assert data.variant == "time_split" and data.split_rule == "80/10/10 by time over all ratings"
    ordered = ratings[np.argsort(ratings[:, 3])]
    # Rows of a split keep the file's order; compare as sets of rows.
    for split, rows in zip(data.splits.values(), (ordered[:240], ordered[240:270], ordered[270:]), strict=True):
        np.testing.assert_array_equal(np.sort(split.groups["user_id"]), np.sort(rows[:, 0]))
        assert split.labels["rating"].sum() == rows[:, 2].sum()
    assert [task.kind for task in data.tasks] == ["regression", "binary", "binary"]


def test_labels_follow_the_rating(folder_100k):
    labels = load_dataset("movielens_100k", folder_100k).train.labels
    np.testing.assert_array_equal(labels["like"], labels["rating"] >= 4)
    np.testing.assert_array_equal(labels["love"], labels["rating"] == 5)
    assert all(label.dtype == np.float32 for label in labels.values())


def test_genres_are_a_padded_sequence_and_unknown_years_are_missing(folder_100k):
    data = load_dataset("movielens_100k", folder_100k, embedding_dim=8)
    kinds = {feature.name: feature.kind for feature in data.features}
    assert kinds["genres"] == "sequence" and kinds["age"] == "numeric" and kinds["year"] == "categorical"
    genres = data.train.inputs["genres"]
    assert genres.shape == (240, 6) and ((genres > 0).sum(1) == 2).all()
    assert set(data.train.inputs["year"]) == {0, 2}
    assert {feature.dim for feature in data.features if feature.kind != "numeric"} == {8}


def test_1m_without_timestamps_splits_each_user(folder_1m):
    data = load_dataset("movielens_1m", folder_1m)
    assert data.variant == "user_split" and "there are no timestamps" in data.split_rule
    for user in range(1, USERS + 1):
        rows = [int((split.groups["user_id"] == user).sum()) for split in data.splits.values()]
        assert rows[0] == pytest.approx(0.8 * sum(rows), abs=1) and min(rows) > 0
    assert {f.name: f.kind for f in data.features}["age"] == "categorical"
    years = next(feature for feature in data.features if feature.name == "year")
    assert years.num_ids - 2 == 3
    with pytest.raises(
        ValueError, match=r"`split` can be 'time' only where ratings have timestamps. Received: split='time'"
    ):
        load_dataset("movielens_1m", folder_1m, split="time")


def test_1m_official_file_has_timestamps(folder_1m, ratings):
    plain = load_dataset("movielens_1m", folder_1m)
    (folder_1m / "movielens_1m" / "ratings.dat").write_bytes(lines(ratings, "::"))
    data = load_dataset("movielens_1m", folder_1m)
    assert data.variant == "time_split" and data.version != plain.version
    by_user = load_dataset("movielens_1m", folder_1m, split="user")
    np.testing.assert_array_equal(by_user.test.inputs["movie_id"], plain.test.inputs["movie_id"])


def test_user_split_is_seeded_and_holds_its_shares():
    users = np.random.default_rng(0).integers(50, size=20_000)
    part = user_split(users, 1)
    np.testing.assert_array_equal(part, user_split(users, 1))
    assert (part != user_split(users, 2)).any()
    assert np.bincount(part) / len(users) == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    twenty = user_split(np.repeat([7, 3], 20), 0)
    assert np.bincount(twenty[:20]).tolist() == np.bincount(twenty[20:]).tolist() == [16, 2, 2]


def test_altered_files_are_refused(folder_1m, monkeypatch):
    assert all(c.ok for c in verify_dataset("movielens_1m", folder_1m))
    counts = movielens.COUNTS_1M
    monkeypatch.setattr(
        movielens, "COUNTS_1M", dataclasses.replace(counts, stars=(counts.stars[0] + 1, *counts.stars[1:]))
    )
    assert [c.what for c in verify_dataset("movielens_1m", folder_1m) if not c.ok] == ["ratings", "ratings of 1"]
    with pytest.raises(ValueError, match=r"`ratings of 1 of movielens_1m` must be that of the official files"):
        load_dataset("movielens_1m", folder_1m)


@pytest.mark.parametrize("name", ["movielens_100k", "movielens_1m"])
def test_refuses(name, tmp_path):
    with pytest.raises(ValueError, match=r"Received: split='random'. Expected: one of 'auto', 'time', 'user'"):
        load_dataset(name, tmp_path, split="random")


def test_refuses_a_negative_seed(folder_1m):
    with pytest.raises(ValueError, match=r"`seed` must be a whole number >= 0"):
        load_dataset("movielens_1m", folder_1m, seed=-1)


def test_a_file_of_three_is_missing(folder_1m):
    (folder_1m / "movielens_1m" / "users.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected: users.dat"):
        load_dataset("movielens_1m", folder_1m)


@pytest.mark.real_data
def test_real_files(data_dir):
    for name, like, love, kind in (
        ("movielens_100k", 0.554, 0.212, "time_split"),
        ("movielens_1m", 0.575, 0.226, "user_split"),
    ):
        assert all(c.ok for c in verify_dataset(name, data_dir))
        data = load_dataset(name, data_dir)
        assert data.variant == kind
        both = {n: np.concatenate([split.labels[n] for split in data.splits.values()]) for n in ("like", "love")}
        assert both["like"].mean() == pytest.approx(like, abs=5e-4)
        assert both["love"].mean() == pytest.approx(love, abs=5e-4)
        assert ((data.train.inputs["genres"] > 0).sum(1) >= 1).all()
        train = {feature.name: feature.num_ids for feature in data.features if feature.kind == "categorical"}
        assert train["gender"] == 4 and train["occupation"] == 23
