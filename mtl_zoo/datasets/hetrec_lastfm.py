"""Last.fm of HetRec 2011: who listens to whom how often, what users tag, and who is whose friend."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import Resource, check_count, content_version, require_contents, search_roots
from mtl_zoo.datasets._negatives import are_among, draw_pairs, pair_keys, sorted_keys
from mtl_zoo.datasets._splits import NAMES, cut, split_rows
from mtl_zoo.features.spec import Categorical, Feature, Sequence
from mtl_zoo.tasks import BinaryTask, RegressionTask, Task

FOLDERS = ("hetrec_lastfm_2k", "hetrec2011-lastfm-2k", "lastfm-2k")
FILES = ("user_artists.dat", "user_friends.dat", "user_taggedartists.dat", "artists.dat", "tags.dat")
COLUMNS = {
    "user_artists.dat": ("userID", "artistID", "weight"),
    "user_friends.dat": ("userID", "friendID"),
    "user_taggedartists.dat": ("userID", "artistID", "tagID", "day", "month", "year"),
    "artists.dat": ("id", "name", "url", "pictureURL"),
    "tags.dat": ("tagID", "tagValue"),
}
TEXTS = ("name", "url", "pictureURL", "tagValue")
COUNTS = {
    "user_artists.dat": 92_834,
    "user_friends.dat": 25_434,
    "user_taggedartists.dat": 186_479,
    "artists.dat": 17_632,
    "tags.dat": 11_946,
}
FRIENDS_LENGTH, TAGS_LENGTH = 20, 5
SPLITS = ("user", "cold_items", "cold_users")


def _check_files(roots: list[Path]) -> list[Check]:
    tables, _ = _read(roots)
    return [
        Check(file, f"{n:,} rows", f"{len(tables[file]):,} rows", n == len(tables[file])) for file, n in COUNTS.items()
    ]


@register_dataset(
    "hetrec_lastfm_2k",
    source="https://grouplens.org/datasets/hetrec-2011/",
    licence="non-commercial research use, cite (readme.txt); redistribution is not granted",
    folders=FOLDERS,
    files=FILES,
    resources=(
        Resource(
            "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
            "hetrec2011-lastfm-2k.zip",
            unpack=True,
        ),
    ),
    check_files=_check_files,
)
def hetrec_lastfm_2k(
    data_dir: str | Path | None = None,
    *,
    split: str = "user",
    negatives: int = 1,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Last.fm 2K: 92,834 listens of 1,892 users to 17,632 artists, their tags, and 12,717 friendships.

    A row is a user and an artist. Tasks:

    * `exposed`, the social question: does a friend listen to this artist?
    * `adopted`, given `exposed`: does the user listen as well? The negatives are those who have seen it at a friend's
      and do not. Not with `negatives=0`.
    * `listen`: does the user listen? Not with `negatives=0`.
    * `plays`, given `listen`: ln(1 + number of plays), a regression.
    * `tagged`, given `listen`: has the user given the artist a tag?

    What a friend listens to counts only where it is a training row: neither a label nor a feature of a training row
    says what is held out, and test rows are asked what could be asked of them when training ended. `plays` and `tagged`
    need no such care. Listens have no times.

    Features: user, artist, the ids of up to 20 friends (they share the users' table), and the artist's five most
    frequent tags, counted without the tags of held-out rows. `data.entities` has `user_id` (friends) and `artist_id`
    (name, tags); `data.tables["friends"]` the edges, both directions (user_id, friend_id);
    `data.tables["tag_assignments"]` user_id, artist_id, tag and date, those of held-out rows left out.

    Args:
        data_dir: See `load_dataset`.
        split: `"user"`: each user's listens 80/10/10 at random. `"cold_items"`, `"cold_users"`: a tenth of the artists
            or of the users each for validation and test.
        negatives: Pairs without a listen for each with one, in every split: half of them artists of friends, half drawn
            as often as they are listened to. Those of training may be held-out listens, which nothing must give away.
        embedding_dim: Width of every embedding.
        seed: Of the split and the negatives.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a file has other columns or rows than the official one.

    Reference: Cantador, Brusilovsky and Kuflik, HetRec at RecSys 2011, doi:10.1145/2043932.2044016.
    """
    check.check_choice("split", split, SPLITS)
    check.check_int("negatives", negatives, minimum=0)
    check.check_int("seed", seed, minimum=0)
    tables, version = _read(search_roots(data_dir))
    for file, count in COUNTS.items():
        check_count(f"rows of {file}", count, len(tables[file]))
    listens = tables["user_artists.dat"]
    listens = pd.DataFrame(
        {
            "user_id": listens["userID"],
            "artist_id": listens["artistID"],
            "plays": np.log1p(listens["weight"]).astype("float32"),
        }
    )
    tagged = tables["user_taggedartists.dat"]
    tagged_keys = pair_keys(tagged["userID"].to_numpy(), tagged["artistID"].to_numpy())
    keys = pair_keys(listens["user_id"].to_numpy(), listens["artist_id"].to_numpy())
    listens["tagged"] = are_among(keys, sorted_keys(tagged_keys)).astype("float32")
    part, rule = split_rows(listens, split, seed, user="user_id", item="artist_id", items="artists")
    friends = tables["user_friends.dat"].rename(columns={"userID": "user_id", "friendID": "friend_id"})
    heard = _heard_by_friends(listens[part == 0], friends)
    rows = _with_labels(cut(listens, part), heard, negatives, seed)
    known = ~are_among(tagged_keys, sorted_keys(keys[part != 0]))
    assignments = _assignments(tagged[known], tables["tags.dat"])
    return fitted_dataset(
        tables=rows,
        features=_features(embedding_dim),
        tasks=_tasks(negatives),
        group_columns=("user_id",),
        entities={
            "user_id": _users(listens, friends),
            "artist_id": _artists(tables["artists.dat"], listens["artist_id"], assignments),
        },
        further={"friends": friends, "tag_assignments": assignments},
        keep_raw=True,
        name="hetrec_lastfm_2k",
        variant=f"{split}_split,negatives={negatives}",
        version=version,
        split_rule=f"{rule}; {negatives} pairs without a listen beside each",
        notes=("what friends listen to counts where it is a training row",),
    )


def _read(roots: list[Path]) -> tuple[dict[str, pd.DataFrame], str]:
    contents = require_contents("hetrec_lastfm_2k", roots, FOLDERS, FILES)
    return {file: _table(file, content) for file, content in contents.items()}, content_version(*contents.values())


def _table(file: str, content: bytes) -> pd.DataFrame:
    # Names are UTF-8 for the most part, and quotes in them mean nothing.
    text = content.decode("utf-8-sig", "replace")
    header = tuple(text.partition("\n")[0].strip().split("\t"))
    if header[: len(COLUMNS[file])] != COLUMNS[file]:
        raise ValueError(f"`{file}` must have the columns {', '.join(COLUMNS[file])}. Received: {', '.join(header)}")
    types = {column: str if column in TEXTS else "int64" for column in COLUMNS[file]}
    return pd.read_csv(io.StringIO(text), sep="\t", quoting=3, dtype=types, keep_default_na=False, usecols=list(types))


def _heard_by_friends(listens: pd.DataFrame, friends: pd.DataFrame) -> np.ndarray:
    """Keys of the pairs (user, artist) where a friend listens to the artist, sorted."""
    pairs = friends.merge(listens[["user_id", "artist_id"]].rename(columns={"user_id": "friend_id"}), on="friend_id")
    pairs = pairs[pairs["user_id"] != pairs["friend_id"]]
    return sorted_keys(pair_keys(pairs["user_id"].to_numpy(), pairs["artist_id"].to_numpy()))


def _with_labels(
    listens: dict[str, pd.DataFrame], heard: np.ndarray, negatives: int, seed: int
) -> dict[str, pd.DataFrame]:
    train = listens["train"]
    seen = pair_keys(train["user_id"].to_numpy(), train["artist_id"].to_numpy())
    every = np.concatenate([pair_keys(t["user_id"].to_numpy(), t["artist_id"].to_numpy()) for t in listens.values()])
    made = {}
    for place, name in enumerate(NAMES):
        table = listens[name].assign(listen=np.float32(1))
        if negatives:
            known = seen if name == "train" else every
            users = np.repeat(table["user_id"].to_numpy(), negatives)
            drawn = _draw(users, train["artist_id"].to_numpy(), heard, known, seed + place)
            every = np.concatenate([every, pair_keys(drawn["user_id"].to_numpy(), drawn["artist_id"].to_numpy())])
            table = pd.concat([table, drawn], ignore_index=True)
        keys = pair_keys(table["user_id"].to_numpy(), table["artist_id"].to_numpy())
        exposed = are_among(keys, heard)
        made[name] = table.assign(
            exposed=exposed.astype("float32"), adopted=(exposed & (table["listen"] == 1)).astype("float32")
        )
    return made


def _draw(users: np.ndarray, popular: np.ndarray, heard: np.ndarray, known: np.ndarray, seed: int) -> pd.DataFrame:
    """A pair without a listen for each of `users`, every other one of an artist that friends listen to."""
    owners, artists = heard >> 32, heard & 0xFFFFFFFF

    def of_friends(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        starts, ends = np.searchsorted(owners, wanted), np.searchsorted(owners, wanted, side="right")
        places = starts + (rng.random(len(wanted)) * (ends - starts)).astype("int64")
        by_chance = popular[rng.integers(len(popular), size=len(wanted))]
        return np.where(ends > starts, artists[np.minimum(places, len(artists) - 1)], by_chance)

    def by_popularity(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return popular[rng.integers(len(popular), size=len(wanted))]

    first, second = users[::2], users[1::2]
    friends_pairs = draw_pairs(first, of_friends if len(heard) else by_popularity, known, seed)
    known = np.concatenate([known, pair_keys(*friends_pairs)])
    other_pairs = draw_pairs(second, by_popularity, known, seed + len(NAMES))
    pairs = [np.concatenate(parts) for parts in zip(friends_pairs, other_pairs, strict=True)]
    return pd.DataFrame({"user_id": pairs[0], "artist_id": pairs[1], "listen": np.float32(0)})


def _assignments(tagged: pd.DataFrame, tags: pd.DataFrame) -> pd.DataFrame:
    """user_id, artist_id, tag, date (missing where the file's is none, such as the year 1956 or day 0)."""
    parts = {part: tagged[part] for part in ("year", "month", "day")}
    date = pd.to_datetime(pd.DataFrame(parts), errors="coerce")
    return pd.DataFrame(
        {
            "user_id": tagged["userID"],
            "artist_id": tagged["artistID"],
            "tag": tagged["tagID"].map(tags.set_index("tagID")["tagValue"]),
            "date": date.where(date.dt.year >= 2002),
        }
    ).reset_index(drop=True)


def _users(listens: pd.DataFrame, friends: pd.DataFrame) -> pd.DataFrame:
    users = np.union1d(listens["user_id"], friends["user_id"])
    others = _grouped(friends[friends["user_id"] != friends["friend_id"]], "user_id", "friend_id")
    return pd.DataFrame({"user_id": users, "friends": _lists(users, others)})


def _artists(artists: pd.DataFrame, listened: pd.Series, assignments: pd.DataFrame) -> pd.DataFrame:
    ids = np.union1d(artists["id"], listened)
    counts = assignments.groupby(["artist_id", "tag"]).size().reset_index(name="n")
    counts = counts.sort_values(["artist_id", "n", "tag"], ascending=[True, False, True])
    # A sequence keeps its last values: the most frequent stand last.
    most = _grouped(counts.groupby("artist_id").head(TAGS_LENGTH).iloc[::-1], "artist_id", "tag")
    names = artists.drop_duplicates("id").set_index("id")["name"]
    return pd.DataFrame({"artist_id": ids, "name": pd.Series(ids).map(names), "tags": _lists(ids, most)})


def _grouped(table: pd.DataFrame, key: str, column: str) -> dict[int, list]:
    """The values of a column by key, in the order of the rows."""
    lists: dict[int, list] = {}
    for one, value in zip(table[key].tolist(), table[column].tolist(), strict=True):
        lists.setdefault(one, []).append(value)
    return lists


def _lists(ids: np.ndarray, lists: dict[int, list]) -> pd.Series:
    """A list for each id, empty where there is none."""
    column = np.empty(len(ids), object)
    column[:] = [lists.get(i, []) for i in ids.tolist()]
    return pd.Series(column)


def _features(dim: int) -> tuple[Feature, ...]:
    return (
        Categorical("user_id", dim=dim),
        Sequence("friends", key="user_id", length=FRIENDS_LENGTH, pooling="mean", dim=dim),
        Categorical("artist_id", dim=dim),
        Sequence("tags", length=TAGS_LENGTH, pooling="mean", dim=dim, min_count=5),
    )


def _tasks(negatives: int) -> tuple[Task, ...]:
    if not negatives:
        return BinaryTask("exposed"), RegressionTask("plays"), BinaryTask("tagged")
    return (
        BinaryTask("exposed"),
        BinaryTask("adopted", sample_space="exposed"),
        BinaryTask("listen"),
        RegressionTask("plays", sample_space="listen"),
        BinaryTask("tagged", sample_space="listen"),
    )
