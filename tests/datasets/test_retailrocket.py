import numpy as np
import pytest
from published import check_same, check_whole, lines, pairs, rows_of, write, write_zip

from mtl_zoo.datasets import load_dataset, verify_dataset

PAIRS = pairs(40, 50, 400)
EVENTS = ("timestamp", "visitorid", "event", "itemid", "transactionid")


def events():
    """Every pair is viewed, every third put into the cart, every sixth bought; the last two have no earlier step."""
    rng = np.random.default_rng(0)
    starts = 1_433_221_332_117 + rng.permutation(len(PAIRS)) * 10_000
    rows = []
    for i, ((user, item), start) in enumerate(zip(PAIRS, starts, strict=True)):
        steps = ["view", "view"] + ["addtocart"] * (i % 3 == 0) + ["transaction"] * (i % 6 == 0)
        steps = {398: ["addtocart"], 399: ["transaction"]}.get(i, steps)
        rows += [
            (start + 1000 * j, user, step, item, 7 if step == "transaction" else "") for j, step in enumerate(steps)
        ]
    return [rows[i] for i in rng.permutation(len(rows))]


def caserec():
    header = ("visitorid", "itemid", "event")
    files = {
        "view_ecommerce.dat": [p for i, p in enumerate(PAIRS) if i < 398],
        "add_to_cart_ecommerce.dat": [p for i, p in enumerate(PAIRS) if (i % 3 == 0 and i != 399) or i == 398],
        "purchase_ecommerce.dat": [p for i, p in enumerate(PAIRS) if i % 6 == 0 or i == 399],
    }
    return {
        f"RetailRocket_Ecommerce/{name}": lines([(*p, 1) for p in rows], "\t", header) for name, rows in files.items()
    }


@pytest.fixture(params=["events", "caserec"])
def folder(request, tmp_path):
    if request.param == "events":
        return write(tmp_path / "retailrocket", {"events.csv": lines(events(), ",", EVENTS)}).parent
    write_zip(tmp_path / "retailrocket_caserec" / "Retailrocket_Ecommerce.zip", caserec())
    return tmp_path


def test_funnel(folder):
    data = load_dataset("retailrocket", folder)
    check_whole(data, "user_id", "item_id")
    rows = rows_of(data)
    seen = rows[rows["view"] == 1].sort_values(["user_id", "item_id"], ignore_index=True)
    assert list(zip(seen["user_id"], seen["item_id"], strict=True)) == PAIRS
    cart, bought = np.arange(400) % 3 == 0, np.arange(400) % 6 == 0
    cart[[398, 399]], bought[399] = True, True
    np.testing.assert_array_equal(seen["cart"], cart)
    np.testing.assert_array_equal(seen["purchase"], bought)
    assert (rows["purchase"] <= rows["cart"]).all() and (rows["cart"] <= rows["view"]).all()
    note = "of 400 pairs 2 have no view and 1 a purchase without a cart; the later step counts for the earlier"
    assert data.notes[0] == note
    assert [task.sample_space for task in data.tasks] == [None, "view", "cart"]
    check_same(data, load_dataset("retailrocket", folder))
    assert len(rows_of(load_dataset("retailrocket", folder, negatives=0))) == 400


def test_events_split_by_time(tmp_path):
    write(tmp_path / "retailrocket", {"events.csv.gz": lines(events(), ",", EVENTS)})
    data = load_dataset("retailrocket", tmp_path, negatives=0)
    assert data.variant == "events,time_split,negatives=0"
    check_whole(data, "user_id", "item_id", time="time")
    assert [len(split) for split in data.splits.values()] == [320, 40, 40]


def test_categories_where_the_files_are(tmp_path):
    properties = [(100 + i, item, "categoryid", item % 5) for i, item in enumerate(range(1, 45))]
    properties += [(500, 3, "categoryid", 99), (1, 3, "790", "n1.000 22"), (2, 4, "available", 1)]
    names = ("timestamp", "itemid", "property", "value")
    write(
        tmp_path / "retailrocket",
        {
            "events.csv": lines(events(), ",", EVENTS),
            "item_properties_part1.csv": lines(properties[20:], ",", names),
            "item_properties_part2.csv": lines(properties[:20], ",", names),
            "category_tree.csv": lines([(c, 1000 + c if c else "") for c in range(5)], ",", ("categoryid", "parentid")),
        },
    )
    data = load_dataset("retailrocket", tmp_path)
    items = data.entities["item_id"].set_index("item_id")
    assert items.loc[3, "category"] == "3" and items.loc[3, "parent"] == "1003"
    assert items["category"].isna().sum() == 6
    assert {"category", "parent"} <= set(data.train.inputs)


def test_refuses(folder, tmp_path):
    assert all(c.ok for c in verify_dataset("retailrocket", folder))
    if not (folder / "retailrocket").exists():
        with pytest.raises(ValueError, match="`split` can be 'time' only where events have times"):
            load_dataset("retailrocket", folder, split="time")
        return
    for content, text in (
        (lines([(1, 2, "look", 3, "")], ",", EVENTS), r"`event` must be one of view, addtocart, .*\['look'\]"),
        (lines([(1, 2)], ",", EVENTS[:2]), r"`events.csv` must have the columns .* without \['event', 'itemid'\]"),
    ):
        write(folder / "retailrocket", {"events.csv": content})
        with pytest.raises(ValueError, match=text):
            load_dataset("retailrocket", folder)
    with pytest.raises(FileNotFoundError, match="Download the archive from https://www.kaggle.com/.*CC BY-NC-SA"):
        load_dataset("retailrocket", tmp_path / "none")


@pytest.mark.real_data
def test_real_files(data_dir):
    data = load_dataset("retailrocket", data_dir, negatives=0)
    rows = rows_of(data)
    assert len(rows) == 79_595 and rows["purchase"].sum() == 5_088 and rows["cart"].sum() == 9_028 + 372
