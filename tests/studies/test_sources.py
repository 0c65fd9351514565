"""The study of two sources: tables of a split, and a small run."""

import pandas as pd
import pytest

from benchmarks.studies import sources
from benchmarks.studies._cases import Split


def rows(count=60):
    users = [i % 6 for i in range(count)]
    films = [i % 7 for i in range(count)]
    table = pd.DataFrame({"user_id": users, "item_id": films, "age": [20 + u for u in users], "occupation": "none"})
    return table.assign(rating=[1 + i % 5 for i in range(count)], like=[int(i % 5 > 2) for i in range(count)])


def test_unwatched_films_are_not_watched():
    train = rows(30)
    split = Split(train, train, {}, 0)
    tables = sources.sources_of(split)
    seen = set(zip(train["user_id"], train["item_id"], strict=True))
    watched = tables["watches"]
    assert {"age", "like"} & set(watched) == set() and set(watched["watched"]) == {0, 1}
    for row in watched.itertuples():
        assert ((row.user_id, row.item_id) in seen) == (row.watched == 1)
    assert 0 < len(tables["ratings"]) < len(train)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_small_run_has_a_row_for_each_case(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ZOO_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "rows_of", lambda folder: rows(600).assign(item_id=[i * 7 % 40 for i in range(600)]))
    given = ["--seeds", "1", "--epochs", "1", "--resamples", "5"]
    out = tmp_path / "rows.csv"
    assert sources.main([*given, "--out", str(out)]) == 0
    found = pd.read_csv(out)
    assert set(found["case"]) == set(sources.STUDIES["ratings"].cases) and found["value"].notna().all()
    compared = pd.read_csv(tmp_path / "rows-differences.csv").set_index(["case", "task"])
    joint, joined = compared.loc["jointly"], compared.loc["concatenation"]
    assert (joint["difference"] - joined["difference"]).abs().max() < 1e-5
    assert (
        sources.main([*given, "--about", "watches", "--cases", "alone", "jointly", "--out", str(out)[:-4] + "w.csv"])
        == 0
    )
