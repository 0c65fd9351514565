"""Book-Crossing: which books people registered, which of them they rated, and how."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path

import pandas as pd

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, Dataset, fitted_dataset, register_dataset
from mtl_zoo.datasets._files import (
    Resource,
    content_version,
    missing_files,
    read_content,
    require_contents,
    search_roots,
)
from mtl_zoo.datasets._negatives import with_negatives
from mtl_zoo.datasets._splits import cut, split_rows, without_training_row
from mtl_zoo.features.spec import Categorical, Numeric
from mtl_zoo.tasks import BinaryTask, RegressionTask, Task

FOLDERS = ("bookcrossing", "bookcrossing_caserec", "bookcrossing/book_crossing", "BX-CSV-Dump")
OFFICIAL = ("BX-Book-Ratings.csv", "BX-Users.csv", "BX-Books.csv")
CASEREC, ARCHIVE = ("book_history.dat", "book_ratings.dat", "users_info.dat", "items_info.dat"), "book_crossing.zip"
# Repaired copies of users_info.dat and items_info.dat, which have tabs within titles.
CLEAN = ("users_clean.csv", "items_clean.csv")
SPLITS = ("user", "cold_items", "cold_users")
LIKED = 8


def _check_files(roots: list[Path]) -> list[Check]:
    accesses, users, books, form, _ = _read(roots)
    counts = {
        "accesses": len(accesses),
        "ratings": int(accesses["rated"].sum()),
        "users": len(users),
        "books": len(books),
    }
    return [Check(f"{what} of {form}", "at least one", f"{n:,}", n > 0) for what, n in counts.items()]


@register_dataset(
    "bookcrossing",
    source="http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
    licence="freely available for research use when acknowledged (Ziegler et al. 2005)",
    folders=FOLDERS,
    files=OFFICIAL,
    resources=(
        Resource("http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip", "BX-CSV-Dump.zip", unpack=True),
    ),
    check_files=_check_files,
)
def bookcrossing(
    data_dir: str | Path | None = None,
    *,
    split: str = "user",
    negatives: int = 1,
    embedding_dim: int = 16,
    seed: int = 0,
) -> Dataset:
    """Book-Crossing: a funnel from a book that is accessed over one that is rated to one that is liked.

    A row is a user and a book. Tasks:

    * `accessed`: has the user registered the book? Not with `negatives=0`.
    * `rated`, given `accessed`: with a rating above 0, which the dump gives for a book without one.
    * `liked`, given `rated`: at least 8 of 10.
    * `rating`, given `rated`: 1 to 10, a regression.

    Features: user, age (years; missing below 5 and above 100), country (the last part of the location), book, author,
    publisher, year (missing where it is 0 or after 2004, when the data were gathered). `data.entities` has `user_id`
    (age, country, location) and `book_id` (isbn, title, author, publisher, year). There are no times.

    Args:
        data_dir: See `load_dataset`. Read are the official BX-*.csv (latin-1, of 1,149,780 rows), or the subset of
            users with 20 and books with 10 accesses of CaseRec (book_crossing.zip, or its files).
        split: `"user"`: each user's accesses 80/10/10 at random. `"cold_items"`, `"cold_users"`: a tenth of the books
            or users each for validation and test.
        negatives: Pairs without an access for each with one, in every split, of books as often as they are accessed.
        embedding_dim: Width of every embedding.
        seed: Of the split and the negatives.

    Raises:
        FileNotFoundError: The files are not there.
        ValueError: An option is out of range; a file has other columns.

    Reference: Ziegler, McNee, Konstan and Lausen, WWW 2005, doi:10.1145/1060745.1060754.
    """
    check.check_choice("split", split, SPLITS)
    check.check_int("negatives", negatives, minimum=0)
    check.check_int("seed", seed, minimum=0)
    accesses, users, books, form, version = _read(search_roots(data_dir))
    accesses["liked"] = ((accesses["rating"] >= LIKED) & (accesses["rated"] == 1)).astype("float32")
    part, rule = split_rows(accesses, split, seed, user="user_id", item="book_id", items="books")
    tables = cut(accesses, part)
    if negatives:
        tables = with_negatives(tables, negatives, seed, user="user_id", item="book_id", label="accessed")
        tables = {name: table.fillna({"rated": 0, "liked": 0}) for name, table in tables.items()}
    return fitted_dataset(
        tables=tables,
        features=(
            *(
                Categorical(name, dim=embedding_dim)
                for name in ("user_id", "country", "book_id", "author", "publisher")
            ),
            Numeric("age"),
            Numeric("year"),
        ),
        tasks=_tasks(negatives),
        group_columns=("user_id",),
        entities={"user_id": users, "book_id": books},
        keep_raw=True,
        name="bookcrossing",
        variant=f"{form},{split}_split,negatives={negatives}",
        version=version,
        split_rule=f"{rule}; {negatives} pairs without an access beside each",
        notes=(without_training_row(accesses["book_id"], part, "books"),),
    )


def _tasks(negatives: int) -> tuple[Task, ...]:
    return (
        *((BinaryTask("accessed"),) if negatives else ()),
        BinaryTask("rated", sample_space="accessed" if negatives else None),
        BinaryTask("liked", sample_space="rated"),
        RegressionTask("rating", sample_space="rated"),
    )


def _read(roots: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str, str]:
    """Accesses, users and books, which form the files have, and their version."""
    if read_content("bookcrossing", roots, FOLDERS, OFFICIAL[0]) is not None:
        return _read_official(roots)
    if read_content("bookcrossing", roots, FOLDERS, CASEREC[0], ARCHIVE) is not None:
        return _read_caserec(roots)
    raise missing_files("bookcrossing", roots, FOLDERS[0], [", ".join(OFFICIAL), f"or {ARCHIVE}"])


def _read_official(roots: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str, str]:
    contents = require_contents("bookcrossing", roots, FOLDERS, OFFICIAL)
    ratings = _dump(OFFICIAL[0], contents[OFFICIAL[0]], ("User-ID", "ISBN", "Book-Rating"))
    people = _dump(OFFICIAL[1], contents[OFFICIAL[1]], ("User-ID", "Location", "Age"))
    wanted = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")
    items = _dump(OFFICIAL[2], contents[OFFICIAL[2]], wanted)
    # Some ISBN stand in the ratings with spaces, or in small letters.
    isbn = ratings["ISBN"].str.strip().str.upper()
    accesses = _accesses(pd.to_numeric(ratings["User-ID"]), isbn, pd.to_numeric(ratings["Book-Rating"]))
    users = _users(pd.to_numeric(people["User-ID"]), people["Location"], people["Age"])
    codes = items["ISBN"].str.strip().str.upper()
    columns = (items[name] for name in wanted[1:])
    return accesses, users, _books(codes, codes, *columns), "dump", content_version(*contents.values())


def _dump(file: str, content: bytes, columns: tuple[str, ...]) -> pd.DataFrame:
    r"""A file of the dump: latin-1, separated by semicolons, in quotes; a quote within is `\"`, nothing is NULL."""
    text = io.StringIO(content.decode("latin-1"), newline="")
    table = pd.read_csv(
        text, sep=";", quotechar='"', escapechar="\\", doublequote=True, dtype=str, na_values=["NULL"],
        keep_default_na=False, on_bad_lines="skip",
    )  # fmt: skip
    return _with_columns(file, table, columns)


def _with_columns(file: str, table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        found = ", ".join(map(str, table.columns[:8]))
        raise ValueError(f"`{file}` must have the columns {', '.join(columns)}. Received: {found}")
    return table[list(columns)]


def _read_caserec(roots: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str, str]:
    contents = require_contents("bookcrossing", roots, FOLDERS, CASEREC, ARCHIVE)
    history = _tabs(CASEREC[0], contents[CASEREC[0]], ("user", "item"))
    ratings = _tabs(CASEREC[1], contents[CASEREC[1]], ("user", "item", "rating"))
    ratings = ratings.astype({"user": "int64", "item": "int64", "rating": "float32"})
    pairs = history.astype({"user": "int64", "item": "int64"})[["user", "item"]].drop_duplicates()
    pairs = pairs.merge(ratings.drop_duplicates(["user", "item"]), on=["user", "item"], how="outer", sort=False)
    accesses = _accesses(pairs["user"], pairs["item"], pairs["rating"].fillna(0))
    found = [read_content("bookcrossing", roots, FOLDERS, name) for name in CLEAN]
    clean = [content for content in found if content is not None]
    if len(clean) == len(CLEAN):
        people, items = (pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False) for content in clean)
        people = _with_columns(CLEAN[0], people, ("user", "location", "age"))
        items = _with_columns(CLEAN[1], items, ("item", "isbn", "title", "author", "year", "publisher"))
        users = _users(people["user"].astype("int64"), people["location"], people["age"])
        columns = (items[name] for name in ("isbn", "title", "author", "year", "publisher"))
        books = _books(items["item"].astype("int64"), *columns)
    else:
        users, books = _of_caserec(contents)
    return accesses, users, books, "caserec", content_version(*contents.values())


def _of_caserec(contents: dict[str, bytes]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users and books of the files as they are: a title with tabs within is put together by the fields' places."""
    people = [line.split("\t") for line in contents[CASEREC[2]].decode("utf-8", "replace").splitlines()[1:]]
    users = _users(
        pd.Series([int(fields[0]) for fields in people]),
        pd.Series([fields[1] for fields in people]),
        pd.Series([fields[2] for fields in people]),
    )
    rows = []
    for line in contents[CASEREC[3]].decode("utf-8", "replace").splitlines()[1:]:
        fields = line.split("\t")
        # Before the year stand title and author, after it the publisher and three pictures.
        years = [i for i in range(4, len(fields)) if fields[i].isdigit() and len(fields[i]) <= 4]
        place = years[0] if years else min(4, len(fields) - 1)
        publisher = [field for field in fields[place + 1 :] if not field.startswith("http")]
        rows.append(
            (
                int(fields[0]),
                fields[1],
                " ".join(fields[2 : place - 1]),
                fields[place - 1],
                fields[place],
                " ".join(publisher),
            )
        )
    columns = [pd.Series(column) for column in zip(*rows, strict=True)]
    return users, _books(*columns)


def _tabs(file: str, content: bytes, columns: tuple[str, ...]) -> pd.DataFrame:
    table = pd.read_csv(io.BytesIO(content), sep="\t", dtype=str, quoting=csv.QUOTE_NONE, encoding="utf-8")
    return _with_columns(file, table, columns)


def _accesses(users: pd.Series, books: pd.Series, ratings: pd.Series) -> pd.DataFrame:
    rating = ratings.astype("float32")
    odd = ~rating.isin(range(11))
    if odd.any():
        raise ValueError(
            f"`rating` must be 0 (none) to 10. Received {int(odd.sum())} others: {check.sample_values(ratings[odd])}"
        )
    rated = rating > 0
    table = pd.DataFrame(
        {"user_id": users, "book_id": books, "rating": rating.where(rated), "rated": rated.astype("float32")}
    )
    # Of a pair that stands there twice the rated row counts.
    table = table.sort_values("rated", ascending=False, kind="stable").drop_duplicates(["user_id", "book_id"])
    return table.sort_index().reset_index(drop=True)


def _users(ids: pd.Series, location: pd.Series, age: pd.Series) -> pd.DataFrame:
    place = location.fillna("").astype(str)
    country = place.str.rpartition(",")[2].str.strip().str.lower()
    years = pd.to_numeric(age, errors="coerce")
    table = pd.DataFrame({"user_id": ids, "age": years.where(years.between(5, 100)).astype("float32")})
    country = country.where(~country.isin(("", "n/a", "null")))
    return table.assign(country=country, location=place).drop_duplicates("user_id").reset_index(drop=True)


def _books(
    ids: pd.Series, isbn: pd.Series, title: pd.Series, author: pd.Series, year: pd.Series, publisher: pd.Series
) -> pd.DataFrame:
    numbers = pd.to_numeric(year, errors="coerce")
    texts = {
        name: column.fillna("").map(_plain)
        for name, column in (("title", title), ("author", author), ("publisher", publisher))
    }
    table = pd.DataFrame({"book_id": ids, "isbn": isbn, **texts})
    table["year"] = numbers.where(numbers.between(1000, 2004)).astype("float32")
    for name in ("author", "publisher"):
        table[name] = table[name].where(table[name] != "")
    return table.drop_duplicates("book_id").reset_index(drop=True)


def _plain(text: str) -> str:
    """`&amp` and its like as characters, and one space where there are several."""
    return " ".join(html.unescape(text).split())
