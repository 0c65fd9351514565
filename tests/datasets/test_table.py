"""Tables of one's own as data sets: tasks, splits, names, and what is wrong with them in a sentence."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask
from mtl_zoo.datasets import Dataset, load_dataset


def make_table(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, rows),
            "price": rng.normal(size=rows),
            "day": np.arange(rows)[::-1],
            "click": rng.integers(0, 2, rows),
            "stars given": rng.integers(1, 6, rows) * 1.0,
            "mood": rng.choice(["good", "bad"], rows),
        }
    )


LABELS = ["click", "stars given", "mood"]


# fault 22
def test_a_table_becomes_a_data_set(tmp_path):
    table = make_table()
    table.to_csv(tmp_path / "my.csv", index=False)
    data = load_dataset(str(tmp_path / "my.csv"), tasks=LABELS, groups="user_id", exclude=["day"])
    assert data.name == "my" and {name: len(split) for name, split in data.splits.items()} == {
        "train": 240, "validation": 30, "test": 30,
    }  # fmt: skip
    assert {task.name: task.kind for task in data.tasks} == {
        "click": "binary", "stars_given": "regression", "mood": "multiclass",
    }  # fmt: skip
    assert [feature.name for feature in data.features] == ["user_id", "price"]
    every = np.concatenate([split.inputs["price"] for split in data.splits.values()])
    assert len(np.unique(every)) == 300  # no row is in two parts
    assert set(data.test.groups["user_id"]) <= set(table["user_id"])
    table.to_parquet(tmp_path / "my.parquet")
    same = Dataset.from_table(tmp_path / "my.parquet", tasks=LABELS, exclude=["day"])
    assert same.version == data.version
    np.testing.assert_array_equal(same.train.labels["click"], data.train.labels["click"])
    other = Dataset.from_table(table, tasks=LABELS, exclude=["day"], seed=1)
    assert (other.train.labels["click"] != data.train.labels["click"]).any() and other.name == "table"
    assert Dataset.from_table(make_table(seed=1), tasks=LABELS).version != data.version


def test_rows_are_split_by_time_or_as_given():
    table = make_table()
    data = Dataset.from_table(table, tasks="click", time="day", exclude=["mood"])
    np.testing.assert_array_equal(data.test.labels["click"], table["click"][::-1][270:])
    assert "day" not in {feature.name for feature in data.features} and "in the order of 'day'" in data.split_rule
    data = Dataset.from_table(table[:200], table[200:250], table[250:], BinaryTask("buy", label="click"))
    assert [len(split) for split in data.splits.values()] == [200, 50, 50]
    np.testing.assert_array_equal(data.test.labels["buy"], table["click"][250:])


def test_kinds_of_tasks_can_be_said():
    tasks = {"click": "binary", "five": {"kind": "multiclass", "label": "stars given"}}
    data = Dataset.from_table(make_table(), tasks=tasks)
    assert [task.kind for task in data.tasks] == ["binary", "multiclass"]
    assert set(data.tasks[1].classes) == {1.0, 2.0, 3.0, 4.0, 5.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"tasks": ["clik"]},
            "`tasks` must name columns of the table. Received: 'clik'.*mean 'click'.*Expected: any of .*'click'",
        ),
        ({"tasks": []}, "`tasks` must name at least one label column"),
        ({"tasks": {"click": "yes"}}, r"`tasks\['click'\]` must be one of the known values. Received: .*'yes'"),
        ({"tasks": {"click": {"clases": 3}}}, "`tasks` must give keywords of BinaryTask. Received: 'click'"),
        ({"tasks": "click", "groups": ["user"]}, "`groups` must name columns of the table. Received: 'user'"),
        ({"tasks": "click", "time": "when"}, "`time` must name columns of the table. Received: 'when'"),
        ({"tasks": "click", "test": "t.csv"}, "`validation` and `test` must be given both or neither"),
        ({"train": "none.csv"}, "`train` must be a table, or a file that is there. Received: none.csv"),
        ({"train": make_table(20)}, "`train` must have at least 30 rows to be split. Received: 20 rows"),
        ({"train": make_table(0)}, "`train` must have rows"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_table(**{"train": make_table(), "tasks": "click", **arguments})


def test_broken_files_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,2\n"3,4\n1,2,3,4,5\n')
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(ValueError, match=f"`train` must be a whole CSV or Parquet file. Received: .*{name}"):
            load_dataset(str(tmp_path / name), tasks="a")
    with pytest.raises(TypeError, match="takes only the options of .*Received: task. Expected: any of .*tasks"):
        load_dataset(str(tmp_path / "a.csv"), task="a")
