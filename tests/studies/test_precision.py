import pandas as pd
import pytest

from benchmarks.studies import precision


@pytest.mark.tensorflow
def test_each_seed_trains_in_both_policies(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "DATA", {"synthetic_funnel": {"size": 1000}})
    out = tmp_path / "precision.csv"
    given = ["--data", "synthetic_funnel", "--models", "shared_bottom", "--seeds", "1", "--epochs", "1"]
    assert precision.main([*given, "--out", str(out)]) == 0
    rows = pd.read_csv(out)
    assert list(rows.groupby("policy", sort=False).size()) == [len(rows) // 2] * 2 and rows["auc"].between(0, 1).all()
    assert (rows.loc[rows["policy"] == "float32", "difference"] == 0).all() and rows["difference"].abs().max() < 0.1
    assert precision.main([*given, "--out", str(out)]) == 0 and len(pd.read_csv(out)) == len(rows)
