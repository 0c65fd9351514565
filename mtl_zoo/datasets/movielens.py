"""MovieLens 100K and 1M: ratings of films, as a regression and two yes/no questions."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence as SequenceABC
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset, shares
from mtl_zoo.datasets._files import (
    Resource,
    check_count,
    content_version,
    find_file,
    missing_files,
    read_bytes,
    require_file,
    search_roots,
)
from mtl_zoo.features.spec import Categorical, Feature, Numeric, Sequence
from mtl_zoo.tasks import BinaryTask, RegressionTask

TASKS = (RegressionTask("rating"), BinaryTask("like"), BinaryTask("love"))
LICENCE = "GroupLens research licence: research use, cite, no redistribution"
GENRES_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western".split()
)
# A film has at most six genres; no cell is cut.
GENRES_LENGTH = 6


@dataclasses.dataclass(frozen=True)
class _Counts:
    """What the official files hold: rows, and ratings of 1 to 5 stars."""

    users: int
    movies: int
    stars: tuple[int, ...]


COUNTS_100K = _Counts(943, 1_682, (6_110, 11_370, 27_145, 34_174, 21_201))
COUNTS_1M = _Counts(6_040, 3_883, (56_174, 107_557, 261_197, 348_971, 226_310))
FOLDERS_100K = ("movielens_100k", "movielens_100k/ml-100k", "ml-100k")
FOLDERS_1M = ("movielens_1m", "movielens_1m/ml-1m", "ml-1m")


@dataclasses.dataclass
class _Tables:
    ratings: pd.DataFrame  # user_id, movie_id, rating, and timestamp where there is one
    users: pd.DataFrame
    movies: pd.DataFrame
    version: str

    def counts(self) -> dict[str, int]:
        stars = self.ratings["rating"].value_counts()
        rows = {"users": len(self.users), "movies": len(self.movies)}
        return rows | {f"ratings of {s}": int(stars.get(s, 0)) for s in range(1, 6)}


def _expected(counts: _Counts) -> dict[str, int]:
    stars = {f"ratings of {s}": n for s, n in enumerate(counts.stars, 1)}
    return {"users": counts.users, "movies": counts.movies} | stars


def _checks(tables: _Tables, counts: _Counts) -> list[Check]:
    found = tables.counts()
    checks = [Check(what, f"{n:,}", f"{found[what]:,}", n == found[what]) for what, n in _expected(counts).items()]
    total = sum(counts.stars)
    return [Check("ratings", f"{total:,}", f"{len(tables.ratings):,}", total == len(tables.ratings)), *checks]


@register_dataset(
    "movielens_100k",
    source="https://grouplens.org/datasets/movielens/100k/",
    licence=LICENCE,
    folders=FOLDERS_100K,
    files=("u.data", "u.user", "u.item"),
    resources=(
        Resource(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            "ml-100k.zip",
            md5="0e33842e24a9c977be4e0107933c0723",
            unpack=True,
        ),
    ),
    check_files=lambda roots: _checks(_read_100k(roots), COUNTS_100K),
)
def movielens_100k(
    data_dir: str | Path | None = None, *, split: str = "auto", embedding_dim: int = 16, seed: int = 0
) -> Dataset:
    """MovieLens 100K: 100,000 ratings with their times, by 943 users of 1,682 films.

    Tasks `rating` (regression, 1 to 5), `like` (at least 4) and `love` (5). Features of the user (id, gender, age,
    occupation, first digit of the zip code) and of the film (id, year, genres as a mean-pooled list). Users and films
    that only the later rows know are unknown to the model.

    Args:
        data_dir: See `load_dataset`.
        split: `"time"` (what `"auto"` chooses): the first 80 % of all ratings, the next 10 %, the last 10 %. `"user"`:
            each user's ratings 80/10/10 at random.
        embedding_dim: Width of every embedding.
        seed: Of the split by user.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; rows or ratings are not those of the official files.

    Reference: Harper and Konstan, TiiS 2015, doi:10.1145/2827872.
    """
    check.check_choice("split", split, ("auto", "time", "user"))
    tables = _read_100k(search_roots(data_dir))
    age = Numeric("age")
    return _build("movielens_100k", tables, COUNTS_100K, age, split, embedding_dim, seed)


@register_dataset(
    "movielens_1m",
    source="https://grouplens.org/datasets/movielens/1m/",
    licence=LICENCE,
    folders=FOLDERS_1M,
    files=("ratings.dat", "users.dat", "movies.dat"),
    resources=(
        Resource(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            "ml-1m.zip",
            md5="c4d9eecfca2ab87c1945afe126590906",
            unpack=True,
        ),
    ),
    check_files=lambda roots: _checks(_read_1m(roots), COUNTS_1M),
)
def movielens_1m(
    data_dir: str | Path | None = None, *, split: str = "auto", embedding_dim: int = 16, seed: int = 0
) -> Dataset:
    """MovieLens 1M: 1,000,209 ratings by 6,040 users of 3,883 films.

    Tasks and features as in `movielens_100k`, age in seven classes.

    Args:
        data_dir: See `load_dataset`. Read are the official ratings.dat, or ratings_no_timestamp.csv.
        split: `"time"`: the first 80 % of all ratings, the next 10 %, the last 10 %. `"user"`: each user's ratings
            80/10/10 at random. `"auto"`: by time where there are timestamps, else by user.
        embedding_dim: Width of every embedding.
        seed: Of the split by user.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range, or `"time"` without timestamps; rows or ratings are not those of the
            official files.

    Reference: Harper and Konstan, TiiS 2015, doi:10.1145/2827872.
    """
    check.check_choice("split", split, ("auto", "time", "user"))
    tables = _read_1m(search_roots(data_dir))
    age = Categorical("age", dim=embedding_dim)
    return _build("movielens_1m", tables, COUNTS_1M, age, split, embedding_dim, seed)


def _build(
    name: str, tables: _Tables, counts: _Counts, age: Feature, split: str, embedding_dim: int, seed: int
) -> Dataset:
    check.check_int("seed", seed, minimum=0)
    found = tables.counts()
    for what, expected in _expected(counts).items():
        check_count(f"{what} of {name}", expected, found[what])
    has_times = "timestamp" in tables.ratings
    if split == "time" and not has_times:
        raise ValueError(f"`split` can be 'time' only where ratings have timestamps. Received: split='time' for {name}")
    by_time = has_times if split == "auto" else split == "time"
    part = _time_split(tables.ratings) if by_time else user_split(tables.ratings["user_id"].to_numpy(), seed)
    table = tables.ratings.merge(tables.users, on="user_id", how="left", validate="many_to_one")
    table = table.merge(tables.movies, on="movie_id", how="left", validate="many_to_one")
    table["like"] = (table["rating"] >= 4).astype("float32")
    table["love"] = (table["rating"] == 5).astype("float32")
    rule = (
        "80/10/10 by time over all ratings"
        if by_time
        else f"each user's ratings 80/10/10 at random (seed {seed})"
        + ("" if has_times else "; there are no timestamps")
    )
    return fitted_dataset(
        tables={s: table[part == i].reset_index(drop=True) for i, s in enumerate(("train", "validation", "test"))},
        features=_features(age, embedding_dim),
        tasks=TASKS,
        group_columns=("user_id",),
        name=name,
        variant="time_split" if by_time else "user_split",
        version=tables.version,
        split_rule=rule,
        notes=(_unseen_users(table["user_id"].to_numpy(), part),),
    )


def _unseen_users(users: np.ndarray, part: np.ndarray) -> str:
    new = ~np.isin(users[part == 2], users[part == 0])
    return f"{new.mean():.1%} of the test rows are of users without a training row"


def _features(age: Feature, dim: int) -> tuple[Feature, ...]:
    return (
        Categorical("user_id", dim=dim),
        Categorical("gender", dim=dim),
        age,
        Categorical("occupation", dim=dim),
        Categorical("zip_region", dim=dim),
        Categorical("movie_id", dim=dim),
        Categorical("year", dim=dim),
        Sequence("genres", length=GENRES_LENGTH, pooling="mean", dim=dim),
    )


def _time_split(ratings: pd.DataFrame) -> np.ndarray:
    """0, 1, 2 for the first 80 %, the next 10 % and the last 10 % of the ratings; equal times keep the file's order."""
    order = np.argsort(ratings["timestamp"].to_numpy(), kind="stable")
    part = np.empty(len(order), "int8")
    for i, cut in enumerate(shares(len(order), 0.8, 0.1, 0.1)):
        part[order[cut]] = i
    return part


def user_split(users: np.ndarray, seed: int) -> np.ndarray:
    """0, 1, 2 for 80 %, 10 % and 10 % of each user's rows, drawn at random.

    Args:
        users: A user id for each row.
        seed: Of the draw.

    Returns:
        int8 array of 0 (train), 1 (validation) and 2 (test).
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(users)), users))
    ordered = users[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(users)))
    rank = np.arange(len(users)) - np.repeat(starts, counts)
    # The middle of the row's place in its user's list, so that the shares hold on average for any length.
    place = (rank + 0.5) / np.repeat(counts, counts)
    part = np.empty(len(users), "int8")
    part[order] = (place >= 0.8).astype("int8") + (place >= 0.9)
    return part


def _read_table(content: bytes, separator: str, names: SequenceABC[str], numbers: SequenceABC[str]) -> pd.DataFrame:
    """A latin-1 table without header; '::' becomes a tab first, since only one-character separators parse fast."""
    if separator == "::":
        content, separator = content.replace(b"::", b"\t"), "\t"
    return pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        header=None,
        names=list(names),
        index_col=False,
        usecols=range(len(names)),
        encoding="latin-1",
        quoting=3,
        keep_default_na=False,
        dtype={name: "int64" if name in numbers else str for name in names},
    )


def _user_columns(users: pd.DataFrame) -> pd.DataFrame:
    return users.assign(zip_region=users["zip"].str[:1]).drop(columns="zip")


def _read_100k(roots: list[Path]) -> _Tables:
    paths = {name: require_file("movielens_100k", roots, FOLDERS_100K, name) for name in ("u.data", "u.user", "u.item")}
    contents = {name: read_bytes(path) for name, path in paths.items()}
    ratings = ("user_id", "movie_id", "rating", "timestamp")
    users = ("user_id", "age", "gender", "occupation", "zip")
    items = ("movie_id", "title", "released", "video_released", "url", *GENRES_100K)
    movies = _read_table(contents["u.item"], "|", items, ("movie_id", *GENRES_100K))
    flags = movies[GENRES_100K].to_numpy() == 1
    names = np.array(GENRES_100K, dtype=object)
    return _Tables(
        ratings=_read_table(contents["u.data"], "\t", ratings, ratings),
        users=_user_columns(_read_table(contents["u.user"], "|", users, ("user_id", "age"))),
        movies=pd.DataFrame(
            {
                "movie_id": movies["movie_id"],
                "year": movies["released"].str[-4:],
                "genres": ["|".join(names[row]) for row in flags],
            }
        ),
        version=content_version(*contents.values()),
    )


def _read_1m(roots: list[Path]) -> _Tables:
    ratings_path = find_file(roots, FOLDERS_1M, "ratings.dat") or find_file(
        roots, FOLDERS_1M, "ratings_no_timestamp.csv"
    )
    if ratings_path is None:
        raise missing_files("movielens_1m", roots, FOLDERS_1M[0], ("ratings.dat", "users.dat", "movies.dat"))
    contents = [
        read_bytes(ratings_path),
        *(read_bytes(require_file("movielens_1m", roots, FOLDERS_1M, name)) for name in ("users.dat", "movies.dat")),
    ]
    columns = ("user_id", "movie_id", "rating", "timestamp")
    if ratings_path.name.startswith("ratings.dat"):
        ratings = _read_table(contents[0], "::", columns, columns)
    else:
        ratings = pd.read_csv(io.BytesIO(contents[0]), dtype="int64")[list(columns[:3])]
    users = ("user_id", "gender", "age", "occupation", "zip")
    movies = _read_table(contents[2], "::", ("movie_id", "title", "genres"), ("movie_id",))
    return _Tables(
        ratings=ratings,
        users=_user_columns(_read_table(contents[1], "::", users, ("user_id", "age", "occupation"))),
        movies=movies.assign(year=movies["title"].str.extract(r"\((\d{4})\)\s*$", expand=False)).drop(columns="title"),
        version=content_version(*contents),
    )
