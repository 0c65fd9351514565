"""The study of a graph of friends, on a data set that is made up."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import friends
from mtl_zoo import BinaryTask, Categorical
from mtl_zoo.datasets import Dataset

pytestmark = pytest.mark.tensorflow
USERS = 30


def circles(seed=0):
    rng = np.random.default_rng(seed)
    near = np.triu(rng.random((USERS, USERS)) < 0.2, 1)
    source, target = np.nonzero(near | near.T)
    return pd.DataFrame({"source": source, "target": target})


def made_up(seed):
    rng = np.random.default_rng(seed)

    def rows(count):
        user, artist = rng.integers(0, USERS, count), rng.integers(0, 9, count)
        listen = (rng.random(count) < 0.2 + 0.6 * ((user + artist) % 2)).astype("float32")
        tagged = np.where(listen == 1, rng.integers(0, 2, count), np.nan)
        return pd.DataFrame({"user_id": user, "artist_id": artist, "listen": listen, "tagged": tagged})

    parts = {name: rows(count) for name, count in (("train", 400), ("validation", 100), ("test", 150))}
    tasks = [BinaryTask("listen"), BinaryTask("tagged", sample_space="listen")]
    data = Dataset.from_table(**parts, tasks=tasks, features=[Categorical("user_id"), Categorical("artist_id")])
    for name, table in parts.items():
        getattr(data, name).raw = table
    data.entities = {
        "artist_id": pd.DataFrame({"artist_id": range(9), "tags": [["a", "b"][i % 2 :] for i in range(9)]})
    }
    data.tables = {"friends": circles().rename(columns={"source": "user_id", "target": "friend_id"})}
    return data


def test_swaps_keep_degrees_and_leave_no_doubles():
    edges = circles()
    other = friends.swapped(edges, seed=1)
    assert len(other) == len(edges) and not other.duplicated().any() and (other["source"] != other["target"]).all()
    for end in ("source", "target"):
        assert other[end].value_counts().to_dict() == edges[end].value_counts().to_dict()
    shared = len(edges.merge(other)) / len(edges)
    assert shared < 0.5
    pd.testing.assert_frame_equal(other, friends.swapped(edges, seed=1))


def test_it_writes_rows_and_differences(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ZOO_DATA", str(tmp_path))
    monkeypatch.setattr(friends, "load_dataset", lambda name, split, seed: made_up(seed))
    out = tmp_path / "results" / "friends.csv"
    arguments = ["--out", str(out), "--seeds", "1", "--splits", "user", "--epochs", "1", "--resamples", "10"]
    friends.main([*arguments, "--cases", "ids", "mean", "shuffled: mean"])
    rows = pd.read_csv(out)
    assert rows.groupby("case")["task"].apply(list).to_dict() == {
        case: ["listen", "tagged"] for case in ("ids", "mean", "shuffled: mean")
    }
    assert rows["value"].between(0, 1).all() and set(rows["rows"]) == {150, int(rows["rows"].min())}
    found = pd.read_csv(out.with_name("friends-differences.csv"))
    assert set(zip(found["case"], found["base"], strict=True)) == {
        ("mean", "ids"),
        ("shuffled: mean", "ids"),
        ("ids", "shuffled: mean"),
        ("mean", "shuffled: mean"),
    }
    assert ((found["low"] <= found["difference"]) & (found["difference"] <= found["high"])).all()
    value = rows.set_index(["case", "task"])["value"]
    gap = found.set_index(["case", "base", "task"]).loc[("mean", "ids", "listen"), "difference"]
    assert gap == pytest.approx(value["mean", "listen"] - value["ids", "listen"], abs=2e-5)
    before = out.read_text()
    friends.main([*arguments, "--cases", "ids"])
    assert out.read_text() == before  # what is there stays, and is not made again
    with pytest.raises(ValueError, match="`--cases` must be of"):
        friends.main([*arguments, "--cases", "enemies"])
