import dataclasses
import gzip
import zipfile

import numpy as np
import pandas as pd
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
    with pytest.raises(
        ValueError, match=r"Received: split='random'. Expected: one of 'auto', 'time', 'user', 'cold_items'"
    ):
        load_dataset(name, tmp_path, split="random")


def test_refuses_a_negative_seed(folder_1m):
    with pytest.raises(ValueError, match=r"`seed` must be a whole number >= 0"):
        load_dataset("movielens_1m", folder_1m, seed=-1)


def test_a_file_of_three_is_missing(folder_1m):
    (folder_1m / "movielens_1m" / "users.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected: users.dat"):
        load_dataset("movielens_1m", folder_1m)


@pytest.mark.extended
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


@pytest.fixture
def with_content(folder_100k):
    """Summaries, trailers, and posters in an archive, of some films."""
    posters = folder_100k / "movielens_1m_posters"
    posters.mkdir()
    with zipfile.ZipFile(posters / "posters_64x96_jpeg.zip", "w") as archive:
        for film in (11, 12, 999):
            archive.writestr(f"{film}.jpg", b"\xff\xd8 picture of %d" % film)
    ids = "".join(f"{m},T,{m + 10 if m < 5 else ''},True\n" for m in range(1, MOVIES + 1))
    (posters / "ml100k_to_ml1m_ids.csv").write_text("ml100k_id,title,ml1m_id,has_poster\n" + ids)
    summaries = 'movie_title,wiki_summary\nToy Story (1995),"Toys, told."\nLéon: The Professional (1994),Léon est là.\n'
    (folder_100k / "movielens_100k" / "wiki_summaries.csv").write_text(summaries, encoding="utf-8")
    trailers = folder_100k / "movielens_mise_en_scene_visual"
    trailers.mkdir()
    rows = "".join(f"{film},{','.join(['0.5'] * 6)},{film / 100}\n" for film in (3, 12))
    (trailers / "LLVisualFeatures13K_Log.csv").write_text("ML_Id,f1,f2,f3,f4,f5,f6,f7\n" + rows)
    return folder_100k


def test_what_is_known_of_films(with_content):
    plain = load_dataset("movielens_100k", with_content)
    films = plain.entities["movie_id"].set_index("movie_id")
    assert films.loc[3, "summary"] == "Toys, told." and films.loc[1, "summary"] == "Léon est là."
    assert films["summary"].isna().sum() == MOVIES // 3 and "poster" not in films
    # Films of the one set are found by their ids in the other.
    np.testing.assert_allclose(films.loc[2, "trailer"], [0.5] * 6 + [0.12], rtol=1e-6)
    assert films["trailer"].notna().sum() == 1
    data = load_dataset("movielens_100k", with_content, posters=True)
    films = data.entities["movie_id"].set_index("movie_id")
    assert films.loc[1, "poster"] == b"\xff\xd8 picture of 11" and films["poster"].notna().sum() == 2
    assert data.table("test")["poster"].notna().sum() == data.test.raw["movie_id"].isin((1, 2)).sum()
    assert plain.version == data.version
    assert set(plain.options) == {"split", "embedding_dim", "seed"} and data.options["posters"] is True


def test_posters_in_a_folder_and_of_1m(folder_1m):
    with pytest.raises(
        FileNotFoundError, match="`posters` needs the pictures of MovieLens 1M. Searched: .*ml1m-images"
    ):
        load_dataset("movielens_1m", folder_1m, posters=True)
    images = folder_1m / "ml1m-images" / "images"
    images.mkdir(parents=True)
    (images / "4.jpg").write_bytes(b"four")
    films = load_dataset("movielens_1m", folder_1m, posters=True).entities["movie_id"].set_index("movie_id")
    assert films.loc[4, "poster"] == b"four" and films["poster"].notna().sum() == 1


@pytest.mark.parametrize(("split", "column"), [("cold_items", "movie_id"), ("cold_users", "user_id")])
def test_cold_splits_hold_out_whole_films_and_users(folder_100k, monkeypatch, split, column):
    if column == "user_id":
        monkeypatch.setattr("mtl_zoo.datasets._splits.cold_split", lambda ids, seed: np.clip(ids.to_numpy() - 4, 0, 2))
    data = load_dataset("movielens_100k", folder_100k, split=split)
    held_out = [set(part.raw[column]) for part in data.splits.values()]
    assert not held_out[0] & held_out[1] and not held_out[0] & held_out[2] and not held_out[1] & held_out[2]
    assert (data.test.inputs[column] == 1).all() and data.variant == f"{split}_split"


def test_occupation_as_a_task_about_the_user(folder_100k, monkeypatch):
    monkeypatch.setattr("mtl_zoo.datasets._splits.cold_split", lambda ids, seed: np.clip(ids.to_numpy() - 4, 0, 2))
    data = load_dataset("movielens_100k", folder_100k, profile=True)
    assert data.variant == "cold_users_split,profile" and data.tasks[-1].name == "occupation"
    assert data.tasks[-1].num_classes == 21
    # Neither what is asked nor who the user is.
    assert not {"occupation", "user_id"} & set(data.train.inputs)
    assert (data.train.labels["occupation"] == movielens.OCCUPATIONS_100K.index("writer")).all()
    assert not set(data.train.raw["user_id"]) & set(data.test.raw["user_id"])
    assert data.options["profile"] is True


@pytest.mark.extended
@pytest.mark.real_data
def test_real_content(data_dir):
    data = load_dataset("movielens_100k", data_dir, split="cold_items", posters=True)
    films = data.entities["movie_id"]
    assert films["summary"].notna().sum() == 1_541 and films["poster"].notna().sum() > 1_390
    ratings = pd.concat([split.raw for split in data.splits.values()])
    assert ratings["movie_id"].isin(films.loc[films["summary"].notna(), "movie_id"]).mean() == pytest.approx(
        0.937, abs=1e-3
    )
    data = load_dataset("movielens_1m", data_dir)
    films = data.entities["movie_id"]
    rows = data.table("test")
    assert rows["trailer"].notna().mean() == pytest.approx(0.696, abs=0.01) and "poster" not in films
    posters = load_dataset("movielens_1m", data_dir, posters=True).entities["movie_id"]["poster"]
    assert posters.notna().sum() == 3_256 and posters.dropna().str[:2].eq(b"\xff\xd8").all()


@pytest.mark.real_data
def test_occupations_are_the_official_ones(data_dir):
    found = (data_dir / "movielens_100k" / "u.occupation").read_text().split()
    assert movielens.OCCUPATIONS_100K == found
