import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, Numeric
from mtl_zoo.datasets import Dataset
from mtl_zoo.datasets._base import fitted_dataset
from mtl_zoo.datasets._entities import joined
from mtl_zoo.datasets._negatives import are_among, draw_pairs, pair_keys, sorted_keys, with_negatives
from mtl_zoo.datasets._splits import cold_split, cut, split_rows, time_split, without_training_row


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    sizes = {"train": 60, "validation": 20, "test": 20}
    return {
        name: pd.DataFrame({"user": rng.integers(0, 6, n), "item": rng.integers(0, 9, n), "y": np.arange(n) % 2})
        for name, n in sizes.items()
    }


ITEMS = pd.DataFrame({"item": [0, 1, 2, 3, 4, 5, 6, 7], "price": range(8), "words": list("abcdefgh")})


def dataset(parts, **more):
    return fitted_dataset(
        tables=parts, features=(Categorical("user"), Numeric("price")), tasks=(BinaryTask("y"),),
        group_columns=("user",), entities={"item": ITEMS}, name="n", variant="v", version="0", split_rule="r", **more,
    )  # fmt: skip


def test_joined_is_a_left_join_in_the_order_of_the_rows(parts):
    rows = parts["train"]
    found = joined(rows, {"item": ITEMS})
    expected = rows.merge(ITEMS, on="item", how="left")
    assert list(found.columns) == ["user", "item", "y", "price", "words"]
    assert (found["item"] == rows["item"]).all()
    assert found["words"].fillna("").tolist() == expected["words"].fillna("").tolist()
    missing = rows["item"] == 8
    assert missing.any() and found["price"].isna().equals(missing)
    assert found["price"].dtype == "Int64"
    whole = joined(rows[~missing], {"item": ITEMS})
    assert whole["price"].dtype == "int64" and list(whole.index) == list(rows[~missing].index)


def test_joined_refuses_what_is_not_clear(parts):
    rows = parts["train"]
    with pytest.raises(ValueError, match=r"`entities\['item'\]` must have each id once. Received: 8 more"):
        joined(rows, {"item": pd.concat([ITEMS, ITEMS])})
    with pytest.raises(ValueError, match="`entities` must be named by a column of the rows.*Received: 'film'"):
        joined(rows, {"film": ITEMS.rename(columns={"item": "film"})})
    with pytest.raises(ValueError, match=r"must have columns of its own. Received: \['y'\]"):
        joined(rows, {"item": ITEMS.assign(y=1)})


def test_rows_are_kept_where_asked_for_and_taken_with_the_split(parts):
    data = dataset(parts, keep_raw=True)
    assert data.train.raw.equals(parts["train"]) and "words" in data.table("test")
    taken = data.train.take(7)
    assert taken.raw.equals(parts["train"].head(7))
    drawn = data.train.sample(10, seed=1)
    np.testing.assert_array_equal(drawn.raw["y"], drawn.labels["y"])
    assert list(drawn.raw.index) == list(range(10))
    with pytest.raises(ValueError, match="`split` must be one of the known values. Received: split='all'"):
        data.table("all")
    without = dataset(parts)
    for call in (without.table, lambda: without.with_features((Categorical("user"),))):
        with pytest.raises(ValueError, match="`raw` must be kept to read rows as a table. Received: Dataset"):
            call()


def test_with_features_fits_anew_on_the_same_rows(parts):
    data = dataset(parts, keep_raw=True)
    other = data.with_features((*data.transform.specs, Categorical("words", dim=4)))
    assert isinstance(other, Dataset) and [f.name for f in other.features] == ["user", "price", "words"]
    assert {"user", "price", "words"} <= set(other.train.inputs)
    for name, split in data.splits.items():
        np.testing.assert_array_equal(split.inputs["user"], other.splits[name].inputs["user"])
        np.testing.assert_array_equal(split.labels["y"], other.splits[name].labels["y"])
        np.testing.assert_array_equal(split.groups["user"], other.splits[name].groups["user"])
    assert "words" not in data.train.inputs and other.version == data.version
    tasks = data.with_features((Categorical("item"),), [BinaryTask("odd", label="y")]).tasks
    assert [task.name for task in tasks] == ["odd"]


def test_cold_split_leaves_nothing_of_a_held_out_id():
    ids = np.repeat([f"i{i}" for i in range(100)], np.arange(1, 101))
    part = cold_split(ids, 3)
    groups = [set(ids[part == i]) for i in range(3)]
    assert [len(group) for group in groups] == [80, 10, 10] and len(set.union(*groups)) == 100
    np.testing.assert_array_equal(part, cold_split(ids, 3))
    assert (part != cold_split(ids, 4)).any()
    with pytest.raises(ValueError, match="`split` needs at least 10 different ids to hold some out. Received: 9"):
        cold_split(range(9), 0)


def test_rules_and_notes():
    rows = pd.DataFrame({"u": np.arange(50) % 10, "i": np.arange(50) // 5, "t": np.arange(50)[::-1]})
    part, rule = split_rows(rows, "time", 0, user="u", item="i", time="t")
    assert part.tolist() == [2] * 5 + [1] * 5 + [0] * 40 and rule == "80/10/10 by time over all rows"
    assert time_split([3, 3, 1, 1, 2, 2, 9, 9, 9, 9]).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    part, rule = split_rows(rows, "cold_items", 5, user="u", item="i", items="books")
    assert rule == "books 80/10/10 at random, each with all of its rows (seed 5)"
    note = without_training_row(rows["i"], part, "books")
    assert note == "100.0% of the test rows are of books without a training row"
    with pytest.raises(ValueError, match=r"`split` must leave rows in every part. Received: none in \['test'\]"):
        cut(rows, np.arange(50) % 2)


def test_drawn_pairs_are_new_and_different():
    rng = np.random.default_rng(0)
    known = pair_keys(rng.integers(0, 30, 400), rng.integers(0, 40, 400))
    users = np.repeat(np.arange(30), 8)
    found = draw_pairs(users, lambda wanted, rng: rng.integers(0, 40, len(wanted)), known, 1)
    keys = pair_keys(*found)
    assert len(keys) == len(users) == len(set(keys)) and not set(keys) & set(known)
    assert np.bincount(found[0]).tolist() == [8] * 30
    # A user who has seen everything gets none.
    users, items = draw_pairs(
        np.array([0, 0]), lambda wanted, rng: wanted * 0, pair_keys(np.array([0]), np.array([0])), 0
    )
    assert len(users) == len(items) == 0


def test_keys_are_looked_up_without_hashing():
    keys = pair_keys(np.array([5, 1, 5]), np.array([2, 2**31 - 1, 2]))
    assert sorted_keys(keys).tolist() == [(1 << 32) + 2**31 - 1, (5 << 32) + 2]
    assert are_among(keys, sorted_keys(keys)).all() and not are_among(keys + 1, sorted_keys(keys)).any()
    assert are_among(keys, keys[:0]).tolist() == [False] * 3 and len(sorted_keys(keys[:0])) == 0


@pytest.mark.parametrize("cold", [False, True])
def test_negatives_stand_beside_positives(cold):
    rng = np.random.default_rng(0)
    every = pd.DataFrame({"u": rng.integers(0, 40, 900), "i": rng.integers(0, 400, 900)}).drop_duplicates()
    part = cold_split(every["i"], 0) if cold else np.arange(len(every)) % 10 // 8
    part = part if cold else np.where(np.arange(len(every)) % 10 == 9, 2, part)
    tables = cut(every, part)
    made = with_negatives(tables, 2, 0, user="u", item="i", label="seen", cold_items=cold)
    positives = {name: set(map(tuple, table.to_numpy())) for name, table in tables.items()}
    for name, table in made.items():
        drawn = table[table["seen"] == 0]
        assert len(table) == 3 * len(tables[name]) and not drawn.duplicated(["u", "i"]).any()
        new = set(map(tuple, drawn[["u", "i"]].to_numpy()))
        assert not new & positives["train" if name == "train" else name]
        if name != "train":
            assert not new & set.union(*positives.values())
        # Each user has as many as wanted of each positive, and items are those that the pool holds.
        assert drawn["u"].value_counts().to_dict() == (2 * tables[name]["u"].value_counts()).to_dict()
        assert set(drawn["i"]) <= set(tables[name if cold else "train"]["i"])
    # What is drawn for training may be a held-out pair: nothing gives held-out pairs away.
    again = with_negatives(tables, 2, 0, user="u", item="i", label="seen", cold_items=cold)
    assert all(made[name].equals(again[name]) for name in made)
