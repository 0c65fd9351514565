import numpy as np
import pytest
from published import check_same, check_whole, lines, rows_of, write

from mtl_zoo.datasets import coat, load_dataset, verify_dataset
from mtl_zoo.datasets.coat import ITEM_GROUPS, ITEMS, USER_GROUPS, USERS


def one_of_each(count, groups, seed):
    rng = np.random.default_rng(seed)
    return np.concatenate([np.eye(width, dtype=int)[rng.integers(0, width, count)] for width in groups.values()], 1)


@pytest.fixture(scope="module")
def matrices():
    """24 ratings of each person's choice and 16 of others."""
    rng = np.random.default_rng(0)
    train, test = np.zeros((USERS, ITEMS), int), np.zeros((USERS, ITEMS), int)
    for user in range(USERS):
        items = rng.permutation(ITEMS)
        train[user, items[:24]] = rng.integers(1, 6, 24)
        test[user, items[24:40]] = rng.integers(1, 6, 16)
    return {"train": train, "test": test}


@pytest.fixture
def folder(tmp_path, matrices):
    files = {f"{part}.ascii": lines(matrix.tolist(), " ") for part, matrix in matrices.items()}
    return write(tmp_path / "coat", files).parent


def test_the_test_is_what_chance_chose(folder, matrices):
    data = load_dataset("coat", folder)
    assert [len(split) for split in data.splits.values()] == [
        USERS * 24 - len(data.validation),
        len(data.validation),
        4_640,
    ]
    assert len(data.validation) == pytest.approx(696, abs=200)
    check_whole(data, "user_id", "item_id")
    for user, item, rating, like in (
        data.test.raw[["user_id", "item_id", "rating", "like"]].head(50).itertuples(index=False)
    ):
        assert matrices["test"][user, item] == rating and like == (rating >= 4)
    assert data.variant == "rated,ids" and [f.name for f in data.features] == ["user_id", "item_id"]
    check_same(data, load_dataset("coat", folder))


def test_the_entire_space_has_every_pair(folder, matrices):
    data = load_dataset("coat", folder, space="entire")
    assert len(data.train) + len(data.validation) == USERS * ITEMS and (data.test.raw["rated"] == 1).all()
    rows = rows_of(data).iloc[: USERS * ITEMS]
    rated = matrices["train"][rows["user_id"], rows["item_id"]] > 0
    np.testing.assert_array_equal(rows["rated"], rated)
    assert rows.loc[~rated, ["like", "rating"]].isna().all(axis=None) and rows.loc[rated, "like"].notna().all()
    assert [(task.name, task.sample_space) for task in data.tasks] == [
        ("rated", None),
        ("like", "rated"),
        ("rating", "rated"),
    ]


def test_features_and_propensities_where_they_are(folder, matrices):
    plain = load_dataset("coat", folder)
    users, items = one_of_each(USERS, USER_GROUPS, 1), one_of_each(ITEMS, ITEM_GROUPS, 2)
    propensities = np.random.default_rng(3).random((USERS, ITEMS)).round(4)
    write(
        folder / "coat",
        {
            "user_item_features/user_features.ascii": lines(users.tolist(), " "),
            "user_item_features/item_features.ascii": lines(items.tolist(), " "),
            "propensities.ascii": lines(propensities.tolist(), " "),
        },
    )
    data = load_dataset("coat", folder)
    assert data.variant == "rated" and data.version != plain.version and len(data.features) == 10
    people = data.entities["user_id"]
    np.testing.assert_array_equal(users[:, 2:8].argmax(1), people["age_group"])
    np.testing.assert_array_equal(items[:, 18:31].argmax(1), data.entities["item_id"]["color"])
    raw = data.test.raw
    np.testing.assert_allclose(raw["propensity"], propensities[raw["user_id"], raw["item_id"]], rtol=1e-6)
    users[6, :2] = 1
    write(folder / "coat", {"user_item_features/user_features.ascii": lines(users.tolist(), " ")})
    with pytest.raises(ValueError, match="must have one 1 among the 2 columns of `gender`.*Received: others in line 7"):
        load_dataset("coat", folder)


def test_triplets_give_the_same(folder, matrices, tmp_path):
    official = load_dataset("coat", folder)
    other = tmp_path / "other"
    for part, matrix in matrices.items():
        rows = [(u, i, matrix[u, i]) for u, i in zip(*np.nonzero(matrix), strict=True)]
        write(other / "coat", {f"{part}.txt": lines(rows, " ")})
    check_same(official, load_dataset("coat", other))


def test_altered_files_are_refused(folder, matrices):
    assert all(c.ok for c in verify_dataset("coat", folder))
    with pytest.raises(ValueError, match="Received: space='all'. Expected: one of 'rated', 'entire'"):
        load_dataset("coat", folder, space="all")
    for content, text in (
        (lines(matrices["test"][:, :200].tolist(), " "), r"must hold 290 lines of 300 ratings, .*\(290, 200\)"),
        (lines((matrices["test"] * 2).tolist(), " "), "must hold ratings 1 to 5 of users 0 to 289"),
        (b"a b c\n", "`test.ascii` must hold numbers alone"),
        (lines([(0, 1, 5)], " "), "`ratings of the test file` must be that of the official files. Received: 1"),
    ):
        write(folder / "coat", {"test.ascii": content})
        with pytest.raises(ValueError, match=text):
            load_dataset("coat", folder)
    assert coat.COUNTS == {"train": 6_960, "test": 4_640}


@pytest.mark.real_data
def test_real_files(data_dir):
    assert all(c.ok for c in verify_dataset("coat", data_dir))
    data = load_dataset("coat", data_dir)
    assert len(data.test) == 4_640 and data.test.labels["like"].mean() == pytest.approx(0.1853, abs=5e-4)
    # What people choose they like more.
    assert data.train.labels["rating"].mean() > data.test.labels["rating"].mean() + 0.3
