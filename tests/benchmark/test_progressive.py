"""`mtl-zoo bench progressive`."""

import numpy as np
import pandas as pd
import pytest

import mtl_zoo_cli
from mtl_zoo.benchmark.progressive import days_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("untraced")]


def test_a_table_is_cut_by_its_days_or_into_parts():
    table = pd.DataFrame({"when": [3, 1, 3, 2, 1], "x": range(5)})
    assert {name: rows["x"].tolist() for name, rows in days_of(table, "when").items()} == {
        **{"1": [1, 4], "2": [3], "3": [0, 2]}
    }
    assert [rows["x"].tolist() for rows in days_of(table, "when", 2).values()] == [[1, 4], [3, 0, 2]]
    for column, rows, message in (
        ("day", table, "`day` must name a column"),
        ("when", table.assign(when=[None, 1, 2, 3, 4]), "`when` must tell the day of every row"),
        ("x", table.head(1), "`x` must tell at least two days"),
    ):
        with pytest.raises(ValueError, match=message):
            days_of(rows, column)


@pytest.mark.extended
def test_the_command_measures_writes_and_draws(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"day": np.arange(120) // 40, "item": rng.integers(0, 9, 120) + np.arange(120) // 40})
    rows["click"] = (rows["item"] % 2 + rng.normal(size=120) > 0.5).astype(int)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    out, picture = tmp_path / "days.csv", tmp_path / "days.png"
    command = ["bench", "progressive", str(tmp_path / "rows.csv"), "--day", "day", "--task", "click", "--replay", "20"]
    command += ["--out", str(out), "--picture", str(picture), "--folder", str(tmp_path / "run"), "--l2", "0.01"]
    assert mtl_zoo_cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "click auc" in shown and "new ids" in shown
    found = pd.read_csv(out)
    assert found["day"].unique().tolist() == [1, 2] and picture.exists()
    assert (tmp_path / "run" / "day-000002").is_dir()
    assert mtl_zoo_cli.main([*command, "--first", "3"]) == 2
