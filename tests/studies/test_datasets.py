import json

import pandas as pd
import pytest

from benchmarks.studies import datasets as study
from mtl_zoo.datasets import load_dataset


def test_what_is_described_is_what_the_splits_hold():
    data = load_dataset("synthetic_funnel", size="small", watch_time=True)
    row = study.describe(data)
    assert (row["rows"], row["train"], row["validation"], row["test"]) == (30_000, 20_000, 5_000, 5_000)
    tasks = json.loads(row["tasks"])
    click = data.train.labels["click"]
    assert tasks["click"]["train"] == {"rows": 20_000, "mean": round(float(click.mean()), 4)}
    given = tasks["conversion"]["train"]
    assert tasks["conversion"]["given"] == "click" and given["rows"] == int(click.sum())
    assert given["mean"] == pytest.approx(data.train.labels["conversion"][click == 1].mean(), abs=1e-4)
    assert tasks["watch_time"]["kind"] == "regression"


def test_sets_without_files_are_left_out(tmp_path, monkeypatch):
    cases = [("movielens_100k", {}), ("synthetic_regression", {"size": "small"})]
    monkeypatch.setattr(study, "cases", lambda: cases)
    out = tmp_path / "rows.csv"
    assert study.main(["--out", str(out), "--loads", "1", "--data-dir", str(tmp_path)]) == 0
    table = pd.read_csv(out)
    assert table["dataset"].tolist() == ["synthetic_regression"] and (table["seconds"] > 0).all()


def test_variants_are_of_sets_that_exist():
    names = [name for name, _ in study.cases()]
    assert {"movielens_1m", "kuairand", "mind"} <= set(names)
    assert all(name in names for name, _ in study.VARIANTS)
