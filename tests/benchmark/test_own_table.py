"""The harness on a table of one's own: a YAML of ten lines, and the command line alone."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import mtl_zoo_cli
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import run_config
from mtl_zoo.datasets import Dataset

pytestmark = pytest.mark.usefixtures("untraced")

YAML = """
dataset: visits.csv
dataset_options:
  tasks: [booked, price]
group: user_id
models:
  single_task: {bottom_units: [4], tower_units: [2]}
  shared_bottom: {bottom_units: [4], tower_units: [2]}
epochs: 1
batch_size: 64
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    user, hour = rng.integers(0, 9, 400), rng.integers(0, 24, 400)
    table = pd.DataFrame({"user_id": user, "hour": hour, "booked": rng.integers(0, 2, 400), "price": hour + user})
    table.to_csv(tmp_path / "visits.csv", index=False)
    (tmp_path / "my.yaml").write_text(YAML)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


# fault 22
@pytest.mark.extended
def test_a_yaml_beside_a_table_gives_a_leaderboard_and_rows(folder, capsys):
    assert mtl_zoo_cli.main(["bench", "run", str(folder / "my.yaml")]) == 0
    shown = capsys.readouterr()
    assert "shared_bottom" in shown.out and "booked" in shown.out and "6 finished" in shown.err
    table = ResultStore("results/my.csv").read()
    assert set(table["dataset"]) == {"visits"} and set(table["model"]) >= {"single_task", "shared_bottom", "boosting"}
    assert set(table["task"]) == {"booked", "price"} and {"auc", "gauc", "rmse"} <= set(table["metric"])
    options = json.loads(table["dataset_options"][0])
    assert options["tasks"] == ["booked", "price"] and options["seed"] == 0 and "size" not in options
    assert mtl_zoo_cli.main(["bench", "run", str(folder / "my.yaml")]) == 0  # nothing is trained again
    assert "6 skipped" in capsys.readouterr().err


def test_the_command_line_alone(folder, capsys):
    words = ["--table", str(folder / "visits.csv"), "--task", "booked", "--model", "shared_bottom", "--epochs", "1"]
    assert mtl_zoo_cli.main(["bench", "run", *words, "--set", "bottom_units=4"]) == 0
    assert set(ResultStore("results/visits.csv").read()["task"]) == {"booked"}
    for wrong, message in (
        (["--table", "none.csv"], "`train` must be a table, or a file that is there. Received: none.csv"),
        (["--dataset", "a/b.txt"], "`dataset` must be a name, or the path of a table. Received: dataset='a/b.txt'"),
        (["--table", str(folder / "visits.csv"), "--task", "bought"], "Received: 'bought'"),
    ):
        assert mtl_zoo_cli.main(["bench", "run", *wrong, "--model", "shared_bottom"]) == 2
        assert message in capsys.readouterr().err


# fault 22
@pytest.mark.extended
def test_data_in_hand_may_have_any_name_and_brings_its_own_options(folder, small):
    data = Dataset.from_table(folder / "visits.csv", tasks=["booked"], name="mine", exclude=["price"])
    sizes = {"bottom_units": (4,), "tower_units": (2,)}
    store = ResultStore(folder / "rows.csv")
    for name in ("anything", "synthetic_funnel"):
        run_config(RunConfig(name, "shared_bottom", sizes, epochs=1), store, dataset=data)
    rows = store.read()
    assert set(rows["dataset"]) == {"mine"} and rows["key"].nunique() == 1
    assert json.loads(rows["dataset_options"][0])["exclude"] == ["price"]
    assert run_config(RunConfig("x", "shared_bottom", sizes, epochs=1), store, dataset=data).skipped == 1
    plain = dataclasses.replace(small, options={}, name="own")
    run_config(RunConfig("synthetic_funnel", "shared_bottom", sizes, epochs=1), store, dataset=plain)
    assert set(store.read()["dataset_options"]) == {rows["dataset_options"][0], "{}"}


@pytest.mark.extended
def test_a_front_on_a_table(folder, capsys):
    words = ["--methods", "uncertainty", "--steps", "1", "--picture", str(folder / "front.png")]
    assert mtl_zoo_cli.main(["bench", "pareto", str(folder / "my.yaml"), "--model", "shared_bottom", *words]) == 0
    assert "uncertainty" in capsys.readouterr().out and (folder / "front.png").exists()
