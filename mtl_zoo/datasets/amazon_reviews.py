"""Amazon reviews of a category, as published in 2018 and 2023: stars, a text, and whether others found it helpful."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import Resource, find_file, missing_files, open_bytes, quick_version, search_roots
from mtl_zoo.datasets._splits import cut, split_rows, without_training_row
from mtl_zoo.features.spec import Categorical
from mtl_zoo.tasks import BinaryTask, RegressionTask

FOLDERS = ("amazon_reviews", "amazon_all_beauty_5core_2018")
# Columns of the rows by the keys of a review.
KEYS = {
    "2018": {
        "user_id": "reviewerID",
        "item_id": "asin",
        "rating": "overall",
        "verified": "verified",
        "votes": "vote",
        "time": "unixReviewTime",
        "title": "summary",
        "text": "reviewText",
    },
    "2023": {
        "user_id": "user_id",
        "item_id": "parent_asin",
        "rating": "rating",
        "verified": "verified_purchase",
        "votes": "helpful_vote",
        "time": "timestamp",
        "title": "title",
        "text": "text",
    },
}
# What a review may leave out: votes that nobody gave, and texts.
OPTIONAL = ("votes", "title", "text")
SPLITS = ("time", "user", "cold_items", "cold_users")


def _names(category: str, kind: str = "") -> tuple[str, ...]:
    if kind:
        return f"meta_{category}.json", f"meta_{category}.jsonl"
    return f"{category}_5.json", f"{category}.json", f"{category}.jsonl"


def _folders(category: str) -> tuple[str, ...]:
    return (*FOLDERS, f"amazon_{category.lower()}_5core_2018", f"amazon_{category.lower()}")


def _check_files(roots: list[Path]) -> list[Check]:
    path = find_file(roots, _folders("All_Beauty"), _names("All_Beauty"))
    if path is None:
        raise missing_files("amazon_reviews", roots, FOLDERS[0], [" or ".join(_names("All_Beauty"))])
    rows, edition = _read(path, None)
    return [Check(path.name, f"reviews of the {edition} format", f"{len(rows):,} reviews", len(rows) > 0)]


@register_dataset(
    "amazon_reviews",
    source="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/ and https://amazon-reviews-2023.github.io/",
    licence="research use, cite; no explicit licence",
    folders=FOLDERS,
    files=("All_Beauty_5.json",),
    resources=(
        Resource(
            "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2/categoryFilesSmall/All_Beauty_5.json.gz",
            "All_Beauty_5.json.gz",
        ),
    ),
    check_files=_check_files,
)
def amazon_reviews(
    data_dir: str | Path | None = None,
    *,
    category: str = "All_Beauty",
    split: str = "time",
    drop_repeated: bool = True,
    max_rows: int | None = None,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Amazon reviews of a category: stars, whether the purchase is verified, whether anyone found the review helpful.

    Tasks `rating` (regression, 1 to 5), `verified` and `helpful` (at least one vote). Features `user_id` and
    `item_id`. The rows hold the texts `title` and `text` of the review, `votes` (their number, known only later) and
    `time` (seconds since 1970). `data.entities["item_id"]` has `name`, `brand`, `description` and `categories` of the
    items where the file of metadata is there; its average ratings are left out, since they count the test's reviews.

    A review's texts were written with its stars: with them `rating` is the reading of a review.

    Args:
        data_dir: See `load_dataset`. Read is `<category>_5.json`, `<category>.json` (2018) or `<category>.jsonl`
            (2023), each plain or .gz, and `meta_<category>.json` or `.jsonl`. Which format it is, the keys say.
        category: Such as `"All_Beauty"`, the smallest; `fetch` gets that one of 2018 with 5 reviews of each user and
            item, other categories are downloaded from the pages of the source.
        split: `"time"`: the first 80 % of all reviews, the next 10 %, the last 10 %. `"user"`: each user's 80/10/10 at
            random. `"cold_items"`, `"cold_users"`: a tenth of the items or users each for validation and test.
        drop_repeated: Keep one of the reviews that agree in user, item, time and text; the files have many, and their
            copies would come to lie in two splits.
        max_rows: Read so many reviews only.
        embedding_dim: Width of every embedding.
        seed: Of what is drawn for the split.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a line is no review of either format.

    Reference: Ni, Li and McAuley, EMNLP 2019, doi:10.18653/v1/D19-1018; Hou et al. 2024, arXiv:2403.03952.
    """
    check.check_choice("split", split, SPLITS)
    check.check_choice("drop_repeated", drop_repeated, (False, True))
    check.check_int("seed", seed, minimum=0)
    if max_rows is not None:
        check.check_int("max_rows", max_rows, minimum=30)
    if not isinstance(category, str) or not category.replace("_", "").isalnum():
        raise ValueError(f"`category` must be a category's name as in its file's. Received: category={category!r}")
    roots = search_roots(data_dir)
    path = find_file(roots, _folders(category), _names(category))
    if path is None:
        raise missing_files("amazon_reviews", roots, FOLDERS[0], [" or ".join(_names(category))])
    rows, edition = _read(path, max_rows)
    notes = [f"{len(rows):,} reviews"]
    if drop_repeated:
        kept = rows.drop_duplicates(["user_id", "item_id", "time", "text"]).reset_index(drop=True)
        notes = [f"{len(rows) - len(kept):,} of {len(rows):,} reviews were copies of others, and left out"]
        rows = kept
    part, rule = split_rows(rows, split, seed, user="user_id", item="item_id", time="time")
    meta = find_file(roots, _folders(category), _names(category, "meta"))
    entities = {} if meta is None else {"item_id": _items(meta, set(rows["item_id"]))}
    return fitted_dataset(
        tables=cut(rows, part),
        features=(Categorical("user_id", dim=embedding_dim), Categorical("item_id", dim=embedding_dim)),
        tasks=(RegressionTask("rating"), BinaryTask("verified"), BinaryTask("helpful")),
        group_columns=("user_id",),
        entities=entities,
        keep_raw=True,
        name="amazon_reviews",
        variant=f"{category},{edition},{split}_split" + ("" if max_rows is None else f",max_rows={max_rows}"),
        version=quick_version([path]),
        split_rule=rule,
        notes=(
            *notes,
            without_training_row(rows["user_id"], part, "users"),
            without_training_row(rows["item_id"], part, "items"),
            "the texts were written with the stars",
        ),
    )


def _lines(path: Path, max_rows: int | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a file of one JSON object a line, with the line's number."""
    found = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"`{path.name}` must hold a JSON object a line. Received: line {number} of {path} ({error})"
                ) from error
            if not isinstance(content, dict):
                raise ValueError(
                    f"`{path.name}` must hold a JSON object a line. Received: line {number} of {path}: {line[:80]!r}"
                )
            yield number, content
            found += 1
            if found == max_rows:
                return


def _read(path: Path, max_rows: int | None) -> tuple[pd.DataFrame, str]:
    """The reviews, and which edition their keys are of."""
    columns: dict[str, list[Any]] = {column: [] for column in KEYS["2018"]}
    keys: Mapping[str, str] = {}
    edition = ""
    for number, review in _lines(path, max_rows):
        if not keys:
            fitting = [name for name, known in KEYS.items() if not _absent(known, review)]
            if not fitting:
                raise _no_review(path, number, KEYS["2018"], review)
            edition, keys = fitting[0], KEYS[fitting[0]]
        if _absent(keys, review):
            raise _no_review(path, number, keys, review)
        for column, key in keys.items():
            columns[column].append(review.get(key))
    if not columns["user_id"]:
        raise ValueError(f"`{path.name}` must hold reviews. Received: an empty file, {path}")
    votes = pd.Series(columns["votes"], dtype=object).astype(str).str.replace(",", "")
    rating = pd.to_numeric(pd.Series(columns["rating"]), errors="coerce")
    odd = ~rating.between(1, 5)
    if odd.any():
        raise ValueError(
            f"`rating` must be 1 to 5. Received {int(odd.sum())} others in {path}: "
            f"{check.sample_values(pd.Series(columns['rating'])[odd])}"
        )
    time = np.asarray(columns["time"], "int64")
    table = pd.DataFrame(
        {
            "user_id": columns["user_id"],
            "item_id": columns["item_id"],
            "rating": rating.astype("float32"),
            "verified": np.asarray(columns["verified"]).astype("float32"),
            "votes": pd.to_numeric(votes, errors="coerce").fillna(0).astype("int64"),
            # Milliseconds in 2023, seconds in 2018.
            "time": time // 1000 if edition == "2023" else time,
            "title": [text or "" for text in columns["title"]],
            "text": [text or "" for text in columns["text"]],
        }
    )
    return table.assign(helpful=(table["votes"] > 0).astype("float32")), edition


def _absent(keys: Mapping[str, str], review: Mapping[str, Any]) -> list[str]:
    return [key for column, key in keys.items() if column not in OPTIONAL and review.get(key) is None]


def _no_review(path: Path, number: int, keys: Mapping[str, str], review: Mapping[str, Any]) -> ValueError:
    wanted = [key for column, key in keys.items() if column not in OPTIONAL]
    return ValueError(
        f"`{path.name}` must hold reviews with the keys {', '.join(wanted)} (or those of the other edition). "
        f"Received: line {number} of {path} with {', '.join(map(str, review)) or 'none'}"
    )


def _items(path: Path, known: set[str]) -> pd.DataFrame:
    """What the metadata say of the items that have reviews."""
    found = {}
    for _, item in _lines(path):
        key = item.get("parent_asin") or item.get("asin")
        if key in known and key not in found:
            found[key] = {
                "item_id": key,
                "name": _text(item.get("title")),
                "brand": _text(item.get("brand") or item.get("store")),
                "description": _text(item.get("description")),
                "categories": [str(name) for name in item.get("categories") or item.get("category") or []],
            }
    if not found:
        raise ValueError(f"`{path.name}` must describe items of the reviews. Received: none of them in {path}")
    return pd.DataFrame(list(found.values()))


def _text(value: Any) -> str:
    """Text of what is text, a list of texts, or nothing."""
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
