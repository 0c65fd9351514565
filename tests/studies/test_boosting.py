"""The study of what boosting does better: an effect that one number has on another's is what its small trees lack."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import boosting, numbers
from benchmarks.studies._tables import TABLES, Mixed
from mtl_zoo.tasks import BinaryTask

pytestmark = pytest.mark.tensorflow


def crossed():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=900), "b": rng.normal(size=900)})
    rows["same"] = (rows["a"] * rows["b"] > 0).astype("float32")
    rows["large"] = (rows["a"] > 0.5).astype("float32")
    return Mixed(rows, (BinaryTask("same"), BinaryTask("large")))


def test_cases_change_one_thing_each_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLES, "crossed", crossed)
    cases = ["boosting", "boosting, trees of two leaves", "network", "a network a task"]
    command = ["--tables", "crossed", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path / "rows.csv"), "--cases"]
    assert boosting.main([*command, *cases]) == 0
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False)
    assert rows["case"].tolist() == [case for case in cases for _ in range(2)] and (rows["metric"] == "auc").all()
    found = numbers.differences(rows).loc["crossed"].droplevel("metric")
    assert found["boosting"].eq(0).all()
    assert found.loc["same", "boosting, trees of two leaves"] < -0.3
    assert found.loc["large", "boosting, trees of two leaves"] > -0.01
    assert (found["network"] != found["a network a task"]).any()
    assert boosting.main([*command, *cases]) == 0 and len(pd.read_csv(tmp_path / "rows.csv")) == 8
