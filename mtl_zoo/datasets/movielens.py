"""MovieLens 100K and 1M: ratings of films, as a regression and two yes/no questions."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence as SequenceABC
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets import _movielens_content as content
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
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
from mtl_zoo.datasets._splits import cut, split_rows, user_split, without_training_row
from mtl_zoo.features.spec import Categorical, Feature, Numeric, Sequence
from mtl_zoo.tasks import BinaryTask, MulticlassTask, RegressionTask, Task

__all__ = ["movielens_100k", "movielens_1m", "user_split"]

TASKS = (RegressionTask("rating"), BinaryTask("like"), BinaryTask("love"))
SPLITS = ("auto", "time", "user", "cold_items", "cold_users")
LATER = ("profile", "posters")
LICENCE = "GroupLens research licence: research use, cite, no redistribution"
GENRES_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western".split()
)
OCCUPATIONS_100K = (
    "administrator artist doctor educator engineer entertainment executive healthcare homemaker lawyer librarian "
    "marketing none other programmer retired salesman scientist student technician writer".split()
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
    later=LATER,
)
def movielens_100k(
    data_dir: str | Path | None = None,
    *,
    split: str = "auto",
    profile: bool = False,
    posters: bool = False,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """MovieLens 100K: 100,000 ratings with their times, by 943 users of 1,682 films.

    Tasks `rating` (regression, 1 to 5), `like` (at least 4) and `love` (5). Features of the user (id, gender, age,
    occupation, first digit of the zip code) and of the film (id, year, genres as a mean-pooled list). Users and films
    that only the later rows know are unknown to the model.

    `data.entities` has what is known of users (`user_id`: age in years, gender, occupation, zip_region) and films
    (`movie_id`: title, year, genres). Where the files are there, films also have `summary`, one or two sentences of
    Wikipedia (wiki_summaries.csv), and `trailer`, seven numbers of the look of the trailer.

    Args:
        data_dir: See `load_dataset`.
        split: `"time"` (what `"auto"` chooses): the first 80 % of all ratings, the next 10 %, the last 10 %. `"user"`:
            each user's ratings 80/10/10 at random. `"cold_items"`, `"cold_users"`: a tenth of the films or of the
            users each for validation and test, with all of their ratings.
        profile: Adds the task `occupation` (21 classes), a question about the user, and takes the features `occupation`
            and `user_id` away, by which it would be known. `"auto"` then holds users out.
        posters: Films have a column `poster`, JPEG bytes of 64 x 96 pixels, for 96 % of the ratings.
        embedding_dim: Width of every embedding.
        seed: Of what is drawn for the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; rows or ratings are not those of the official files.

    Reference: Harper and Konstan, TiiS 2015, doi:10.1145/2827872.
    """
    check.check_choice("split", split, SPLITS)
    roots = search_roots(data_dir)
    tables = _read_100k(roots)
    extras = content.of_100k(roots, tables.movies, posters)
    occupation = MulticlassTask("occupation", classes=tuple(OCCUPATIONS_100K)) if profile else None
    age = Numeric("age")
    return _build("movielens_100k", tables, COUNTS_100K, extras, age, occupation, split, embedding_dim, seed)


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
    later=LATER,
)
def movielens_1m(
    data_dir: str | Path | None = None,
    *,
    split: str = "auto",
    profile: bool = False,
    posters: bool = False,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """MovieLens 1M: 1,000,209 ratings by 6,040 users of 3,883 films.

    Tasks, features and `data.entities` as in `movielens_100k`, age in seven classes; there are no summaries.

    Args:
        data_dir: See `load_dataset`. Read are the official ratings.dat, or ratings_no_timestamp.csv.
        split: `"time"`: the first 80 % of all ratings, the next 10 %, the last 10 %. `"user"`: each user's ratings
            80/10/10 at random. `"cold_items"`, `"cold_users"`: as in `movielens_100k`. `"auto"`: by time where there
            are timestamps, else by user.
        profile, posters: As in `movielens_100k`; posters of films with 99.8 % of the ratings.
        embedding_dim: Width of every embedding.
        seed: Of what is drawn for the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range, or `"time"` without timestamps; rows or ratings are not those of the
            official files.

    Reference: Harper and Konstan, TiiS 2015, doi:10.1145/2827872.
    """
    check.check_choice("split", split, SPLITS)
    roots = search_roots(data_dir)
    tables = _read_1m(roots)
    extras = content.of_1m(roots, tables.movies, posters)
    occupation = MulticlassTask("occupation", classes=21) if profile else None
    age = Categorical("age", dim=embedding_dim)
    return _build("movielens_1m", tables, COUNTS_1M, extras, age, occupation, split, embedding_dim, seed)


def _build(
    name: str,
    tables: _Tables,
    counts: _Counts,
    movies: pd.DataFrame,
    age: Feature,
    occupation: Task | None,
    split: str,
    embedding_dim: int,
    seed: int,
) -> Dataset:
    check.check_int("seed", seed, minimum=0)
    found = tables.counts()
    for what, expected in _expected(counts).items():
        check_count(f"{what} of {name}", expected, found[what])
    has_times = "timestamp" in tables.ratings
    if split == "time" and not has_times:
        raise ValueError(f"`split` can be 'time' only where ratings have timestamps. Received: split='time' for {name}")
    if split == "auto":
        split = "cold_users" if occupation else "time" if has_times else "user"
    rows = tables.ratings.copy()
    rows["like"] = (rows["rating"] >= 4).astype("float32")
    rows["love"] = (rows["rating"] == 5).astype("float32")
    part, rule = split_rows(rows, split, seed, user="user_id", item="movie_id", time="timestamp", items="films")
    rule = {"time": "80/10/10 by time over all ratings", "user": rule.replace("rows", "ratings")}.get(split, rule)
    if split == "user" and not has_times:
        rule += "; there are no timestamps"
    given_away = () if occupation is None else ("occupation", "user_id")
    return fitted_dataset(
        tables=cut(rows, part),
        features=tuple(f for f in _features(age, embedding_dim) if f.name not in given_away),
        tasks=(*TASKS, occupation) if occupation else TASKS,
        group_columns=("user_id",),
        entities={"user_id": tables.users, "movie_id": movies},
        keep_raw=True,
        name=name,
        variant=f"{split}_split" + (",profile" if occupation else ""),
        version=tables.version,
        split_rule=rule,
        notes=(without_training_row(rows["user_id"], part, "users"),),
    )


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
                "title": movies["title"],
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
        movies=movies.assign(year=movies["title"].str.extract(r"\((\d{4})\)\s*$", expand=False)),
        version=content_version(*contents),
    )
