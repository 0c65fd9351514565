import numpy as np
import pytest
from published import check_same, check_whole, json_lines, rows_of, write

from mtl_zoo.datasets import load_dataset, verify_dataset


def reviews_2018(count=120, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "overall": float(rng.integers(1, 6)),
            "verified": bool(rng.integers(2)),
            "reviewerID": f"A{rng.integers(30)}",
            "asin": f"{rng.integers(15):010d}",
            "style": {"Size:": " 7.0 oz"},
            "reviewText": f"It's “naïve” {i}\n🙂",
            "summary": f"Title {i}",
            "unixReviewTime": 1_400_000_000 + 86_400 * int(rng.integers(1000)),
        }
        for i in range(count)
    ]
    rows[0]["vote"], rows[1]["vote"] = "1,024", "3"
    del rows[2]["reviewText"], rows[3]["summary"]
    return rows


def reviews_2023(count=120):
    rng = np.random.default_rng(1)
    return [
        {
            "rating": float(rng.integers(1, 6)), "title": f"T {i}", "text": f"text {i}", "images": [], "asin": "B1",
            "parent_asin": f"P{rng.integers(15)}", "user_id": f"U{rng.integers(30)}",
            "timestamp": 1_588_687_728_923 + 1000 * i, "helpful_vote": int(i % 4 == 0) * i,
            "verified_purchase": i % 3 == 0,
        }
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = reviews_2018()
    return write(tmp_path / "amazon_reviews", {"All_Beauty_5.json.gz": json_lines([*rows, *rows[:10]])}).parent


def test_2018(folder):
    data = load_dataset("amazon_reviews", folder)
    assert [len(split) for split in data.splits.values()] == [96, 12, 12]
    check_whole(data, "title", "text", time="time")
    rows = rows_of(data).set_index("text")
    first, third = rows.loc["It's “naïve” 0\n🙂"], rows_of(data).query("title == 'Title 2'").iloc[0]
    assert first["votes"] == 1024 and first["helpful"] == 1 and rows["helpful"].sum() == 2
    assert third["text"] == "" and "" in set(rows["title"])
    # Leading zeros of an item's id stay.
    assert rows["item_id"].str.len().unique().tolist() == [10]
    assert "10 of 130 reviews were copies of others, and left out" in data.notes
    assert data.variant == "All_Beauty,2018,time_split"
    check_same(data, load_dataset("amazon_reviews", folder))


def test_copies_are_kept_if_asked(folder):
    data = load_dataset("amazon_reviews", folder, drop_repeated=False)
    assert len(rows_of(data)) == 130 and "130 reviews" in data.notes


def test_2023_with_metadata(tmp_path):
    rows = reviews_2023()
    meta = [
        {"parent_asin": f"P{i}", "title": f"Soap {i}", "store": "S", "description": ["good", "soap"],
         "average_rating": 4.9, "categories": ["Beauty", "Soap"]}
        for i in range(14)
    ]  # fmt: skip
    files = {"Baby_Products.jsonl": json_lines(rows), "meta_Baby_Products.jsonl.gz": json_lines(meta)}
    write(tmp_path / "amazon_reviews", files)
    data = load_dataset("amazon_reviews", tmp_path, category="Baby_Products", split="user")
    made = rows_of(data).sort_values("time", ignore_index=True)
    assert made["rating"].tolist() == [row["rating"] for row in rows]
    assert made["verified"].tolist() == [float(row["verified_purchase"]) for row in rows]
    assert made["helpful"].sum() == sum(row["helpful_vote"] > 0 for row in rows) and made["time"][0] == 1_588_687_728
    items = data.entities["item_id"].set_index("item_id")
    assert items.loc["P3", "name"] == "Soap 3" and items.loc["P3", "description"] == "good soap"
    assert list(items.columns) == ["name", "brand", "description", "categories"] and "P14" not in items.index
    assert data.table("train").loc[data.train.raw["item_id"] == "P14", "name"].isna().all()
    assert "2023" in data.variant


def test_cold_items(folder):
    data = load_dataset("amazon_reviews", folder, split="cold_items")
    assert not set(data.train.raw["item_id"]) & set(data.test.raw["item_id"])
    assert (data.test.inputs["item_id"] == 1).all()


def test_max_rows(folder):
    data = load_dataset("amazon_reviews", folder, max_rows=40)
    assert len(rows_of(data)) == 40 and data.variant.endswith("max_rows=40")


def broken(**change):
    return json_lines([*reviews_2018(40), {**reviews_2018(9)[0], **change}])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "`All_Beauty_5.json.gz` must hold reviews. Received: an empty file"),
        (json_lines(reviews_2018(4)) + b'{"overall": 5', "must hold a JSON object a line. Received: line 5 of"),
        (b"[1, 2]\n", r"must hold a JSON object a line. Received: line 1 of .*\[1, 2\]"),
        (
            b'{"rating": 3}\n',
            "must hold reviews with the keys reviewerID, asin, overall.*Received: line 1 of .* with rating",
        ),
        (broken(asin=None), "Received: line 41 of"),
        (broken(overall=7.0), r"`rating` must be 1 to 5. Received 1 others in .*\[7.0\]"),
    ],
)
def test_broken_lines_are_named(folder, content, text):
    write(folder / "amazon_reviews", {"All_Beauty_5.json.gz": content})
    with pytest.raises(ValueError, match=text):
        load_dataset("amazon_reviews", folder)


def test_refuses(folder):
    assert all(c.ok for c in verify_dataset("amazon_reviews", folder))
    with pytest.raises(
        FileNotFoundError, match=r"Expected: Books_5.json or Books.json or Books.jsonl .*Source: https://"
    ):
        load_dataset("amazon_reviews", folder, category="Books")
    with pytest.raises(ValueError, match="`category` must be a category's name as in its file's"):
        load_dataset("amazon_reviews", folder, category="../Books")


@pytest.mark.real_data
def test_real_files(data_dir):
    data = load_dataset("amazon_reviews", data_dir)
    assert "1,053 of 5,269 reviews were copies of others, and left out" in data.notes
    whole = rows_of(load_dataset("amazon_reviews", data_dir, drop_repeated=False))
    assert len(whole) == 5_269 and whole["helpful"].mean() == pytest.approx(0.105, abs=5e-4)
    assert whole["user_id"].nunique() == 991 and whole["item_id"].nunique() == 85
