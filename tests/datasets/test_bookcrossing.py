import numpy as np
import pytest
from published import check_same, check_whole, lines, pairs, rows_of, write, write_zip

from mtl_zoo.datasets import load_dataset, verify_dataset

USERS, BOOKS = 25, 60
PAIRS = pairs(USERS, BOOKS, 400)
RATINGS = np.random.default_rng(0).integers(0, 11, len(PAIRS))


def quoted(rows, header):
    def cell(value):
        return "NULL" if value is None else '"' + str(value).replace('"', '\\"') + '"'

    return "\r\n".join(";".join(map(cell, row)) for row in [header, *rows]).encode("latin-1")


def dump():
    ratings = [(u, f" {b:09d}x" if b == 7 else f"{b:09d}X", r) for (u, b), r in zip(PAIRS, RATINGS, strict=True)]
    people = [(u, f"köln, nrw, {['germany', 'usa', 'n/a'][u % 3]}", [None, 24, 0, 244][u % 4]) for u in range(1, 26)]
    books = [
        (
            f"{b:09d}X",
            f'Das "Boot"; Teil {b} &amp; mehr',
            f"Autor é {b % 9}",
            [1991, 0, 2050][b % 3],
            "W. W. Norton &amp; Co",
        )
        + ("http://x",) * 3
        for b in range(1, BOOKS)
    ]
    images = ("Image-URL-S", "Image-URL-M", "Image-URL-L")
    return {
        "BX-Book-Ratings.csv": quoted(ratings, ("User-ID", "ISBN", "Book-Rating")),
        "BX-Users.csv": quoted(people, ("User-ID", "Location", "Age")),
        "BX-Books.csv": quoted(
            books, ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", *images)
        ),
    }


def caserec():
    history = [(*pair, 1) for pair in PAIRS]
    ratings = [(*pair, f"{r:.6f}") for pair, r in zip(PAIRS, RATINGS, strict=True) if r]
    # Tabs within titles, as in the published file.
    items = [
        (
            b,
            f"{b:09d}X",
            "Half\ta Title" if b == 3 else f"Title {b}",
            f"Author {b % 9}",
            1991,
            "A &amp\t Co",
            *["http://x"] * 3,
        )
        for b in range(1, BOOKS + 1)
    ]
    names = ("Book_ID", "ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "S", "M", "L")
    return {
        "book_crossing/book_history.dat": lines(history, "\t", ("user", "item", "accessed")),
        "book_crossing/book_ratings.dat": lines(ratings, "\t", ("user", "item", "rating")),
        "book_crossing/users_info.dat": lines(
            [(u, "oslo, norway", 30 if u % 2 else "", "") for u in range(1, 26)], "\t", ("User-ID", "Location", "Age")
        ),
        "book_crossing/items_info.dat": lines(items, "\t", names),
    }


@pytest.fixture(params=["dump", "caserec"])
def folder(request, tmp_path):
    if request.param == "dump":
        return write(tmp_path / "bookcrossing", dump()).parent
    write_zip(tmp_path / "bookcrossing_caserec" / "book_crossing.zip", caserec())
    return tmp_path


def test_funnel(folder):
    data = load_dataset("bookcrossing", folder)
    check_whole(data, "user_id", "book_id")
    rows = rows_of(data)
    accessed = rows[rows["accessed"] == 1]
    assert len(accessed) == len(PAIRS) and len(rows) == pytest.approx(2 * len(PAIRS), abs=8)
    assert accessed["rated"].sum() == (RATINGS > 0).sum() and accessed["liked"].sum() == (RATINGS >= 8).sum()
    np.testing.assert_array_equal(accessed["rating"].isna(), accessed["rated"] == 0)
    drawn = rows[rows["accessed"] == 0]
    assert not drawn[["rated", "liked"]].any(axis=None) and drawn["rating"].isna().all()
    assert [task.sample_space for task in data.tasks] == [None, "accessed", "rated", "rated"]
    check_same(data, load_dataset("bookcrossing", folder))


def test_without_negatives_and_cold_books(folder):
    data = load_dataset("bookcrossing", folder, negatives=0, split="cold_items")
    assert [task.name for task in data.tasks] == ["rated", "liked", "rating"] and len(rows_of(data)) == len(PAIRS)
    assert not set(data.train.raw["book_id"]) & set(data.test.raw["book_id"])
    cold = load_dataset("bookcrossing", folder, split="cold_items")
    # Drawn books are new where accessed ones are.
    assert not set(cold.train.raw["book_id"]) & set(cold.test.raw["book_id"])


def test_odd_values_of_the_dump(tmp_path):
    data = load_dataset("bookcrossing", write(tmp_path / "bookcrossing", dump()).parent)
    books = data.entities["book_id"].set_index("book_id")
    assert books.loc["000000003X", "title"] == 'Das "Boot"; Teil 3 & mehr' and books.loc["000000003X", "year"] == 1991
    assert books.loc["000000004X", "author"] == "Autor é 4" and np.isnan(books.loc["000000004X", "year"])
    assert books.loc["000000001X", "publisher"] == "W. W. Norton & Co"
    users = data.entities["user_id"].set_index("user_id")
    assert users.loc[1, "age"] == 24 and users.loc[[2, 3, 4], "age"].isna().all()
    assert users.loc[1, "country"] == "usa" and users["country"].isna().sum() == 8
    # " 000000007x" is the book 000000007X; book 60 has ratings and no entry.
    assert "000000007X" in set(rows_of(data)["book_id"]) and "000000060X" not in books.index


def test_titles_with_tabs_are_put_together(tmp_path):
    write_zip(tmp_path / "bookcrossing_caserec" / "book_crossing.zip", caserec())
    books = load_dataset("bookcrossing", tmp_path).entities["book_id"].set_index("book_id")
    assert books.loc[3, "title"] == "Half a Title" and books.loc[3, "author"] == "Author 3"
    assert (books["year"] == 1991).all() and books.loc[4, "publisher"] == "A & Co"


def test_refuses(folder, tmp_path):
    assert all(c.ok for c in verify_dataset("bookcrossing", folder))
    with pytest.raises(ValueError, match="Received: split='time'"):
        load_dataset("bookcrossing", folder, split="time")
    other = tmp_path / "other"
    write(other / "bookcrossing", {**dump(), "BX-Books.csv": b'"ISBN";"Title"\n"1";"x"\n'})
    with pytest.raises(
        ValueError, match="`BX-Books.csv` must have the columns ISBN, Book-Title, .*Received: ISBN, Title"
    ):
        load_dataset("bookcrossing", other)
    (other / "bookcrossing" / "BX-Users.csv").unlink()
    with pytest.raises(FileNotFoundError, match="Expected: BX-Users.csv .*Licence: freely available for research"):
        load_dataset("bookcrossing", other)
    bad = tmp_path / "bad" / "bookcrossing_caserec"
    write(bad, {"book_crossing.zip": b"no archive"})
    with pytest.raises(ValueError, match="`book_crossing.zip` must be a whole .zip"):
        load_dataset("bookcrossing", bad.parent)


@pytest.mark.extended
@pytest.mark.real_data
def test_real_files(data_dir):
    rows = rows_of(load_dataset("bookcrossing", data_dir, negatives=0))
    assert len(rows) == 272_678 and rows["rated"].sum() == 62_656
    assert rows["liked"].sum() / rows["rated"].sum() == pytest.approx(0.663, abs=5e-4)
