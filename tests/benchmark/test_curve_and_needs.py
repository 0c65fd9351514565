"""A learning curve over rows, and what a table needs: one change of a default at a time, on validation rows alone."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

import mtl_zoo_cli
from mtl_zoo.benchmark.config import RunConfig
from mtl_zoo.benchmark.needs import changes, needs_of
from mtl_zoo.benchmark.results import COLUMNS, ResultStore
from mtl_zoo.evaluation import fold_interval
from mtl_zoo.options import MLP


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    item = rng.integers(0, 30, 600)
    liked = rng.normal(size=30)[item]
    click = (rng.random(600) < 1 / (1 + np.exp(-2 * liked))).astype(int)
    pd.DataFrame({"item": item, "hour": rng.integers(0, 24, 600), "click": click}).to_csv(tmp_path / "visits.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.extended
def test_a_curve_over_rows(folder, capsys):
    words = "--table visits.csv --task click --models constant popularity --baselines none --out out --shares 1 0.2"
    assert mtl_zoo_cli.main(["bench", "curve", *words.split()]) == 0
    shown = capsys.readouterr()
    assert "96 rows" in shown.out and "480 rows" in shown.out and "click AUC" in shown.out
    rows = ResultStore("out/visits-curve.csv").read()
    popular = rows[(rows["model"] == "popularity") & (rows["metric"] == "auc") & (rows["split"] == "test")]
    few, many = (
        popular[popular["split_rule"].str.contains(text)]["value"].item() for text in ("rows 96 drawn", "test$")
    )
    assert many > few
    text = (folder / "out" / "visits-curve.md").read_text()
    assert "| click AUC | 96 rows | 480 rows |" in text and f"{many:.4f}" in text
    page = (folder / "out" / "visits-curve.html").read_text()
    assert "Learning curve" in page and page.count("<figure>") == 2
    assert mtl_zoo_cli.main(["bench", "curve", *words.split()]) == 0
    assert "skipped" in capsys.readouterr().err and len(ResultStore("out/visits-curve.csv").read()) == len(rows)
    assert mtl_zoo_cli.main(["bench", "curve", *words.split(), "--folds", "3"]) == 2
    assert "`--folds` and `--train-fraction` have no meaning" in capsys.readouterr().err


def test_one_default_is_changed_at_a_time():
    config = RunConfig("t", "shared_bottom", {"tower_units": (4,)}, epochs=5, seeds=2)
    found = changes(config)
    assert {change.what for change in found} == {
        "learning rate", "epochs", "embedding width", "embedding start", "normalisation",
    }  # fmt: skip
    for change in found:
        after = change.apply(config)
        fields = [f.name for f in dataclasses.fields(config) if getattr(after, f.name) != getattr(config, f.name)]
        assert len(fields) == 1, f"{change.what}: {fields}"
        assert after.all_seeds == config.all_seeds
    norms = [change.apply(config).hyperparameters for change in found if change.what == "normalisation"]
    assert [given["tower_units"]["MLP"]["norm"] for given in norms] == ["batch", "layer"]
    normed = RunConfig("t", "shared_bottom", {"bottom_units": {"MLP": MLP((8,), norm="batch").get_config()}})
    assert None in [
        change.apply(normed).hyperparameters["bottom_units"]["MLP"]["norm"]
        for change in changes(normed)
        if change.what == "normalisation" and "bottom_units" in change.apply(normed).hyperparameters
    ]


def test_what_helps_is_paired_by_seed_and_read_from_validation_rows():
    def rows(key, seed, validation, test):
        common = {"key": key, "dataset_options": "{}", "seed": seed, "task": "click", "metric": "auc", "error": ""}
        common |= {"space": "impressions", "model": "mmoe"}
        return [{**common, "split": split, "value": v} for split, v in (("validation", validation), ("test", test))]

    base, better, same = [0.70, 0.72, 0.71], [0.75, 0.77, 0.765], [0.71, 0.71, 0.71]
    table = pd.DataFrame(
        list(
            itertools.chain.from_iterable(
                rows(f"{name}{seed}", seed, value, 0.1)
                for name, values in (("base", base), ("better", better), ("same", same))
                for seed, value in enumerate(values)
            )
        ),
        columns=list(COLUMNS),
    )
    first, second, *_ = changes(RunConfig("t", "mmoe"))
    keys = {name: [f"{name}{seed}" for seed in range(3)] for name in ("base", "better", "same")}
    found = needs_of(table, keys["base"], [(second, keys["same"]), (first, keys["better"])])
    assert [need.change for need in found] == [first, second]
    np.testing.assert_allclose(found[0].difference, fold_interval(np.subtract(better, base), 0.0))
    assert [need.helps for need in found] == [True, False]
    (alone,) = needs_of(table, keys["base"][:1], [(first, keys["better"][:1])])
    assert not alone.helps and alone.difference.value == pytest.approx(0.05)


@pytest.mark.slow  # some twenty trainings
def test_needs_from_end_to_end(folder, capsys):
    words = "--table visits.csv --task click --model shared_bottom --set bottom_units=4 tower_units=2 --epochs 1"
    assert mtl_zoo_cli.main(["bench", "needs", *words.split(), "--seeds", "1", "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert "learning rate 0.01" in shown.out and "keep them" in shown.out
    table = ResultStore("out/visits-needs.csv").read()
    assert set(table["split"]) == {"validation"}
    assert (folder / "out" / "visits-needs.md").read_text().count("| embedding width") == 4
    assert (
        mtl_zoo_cli.main(["bench", "needs", "--table", "visits.csv", "--task", "click", "--models", "mmoe", "ple"]) == 2
    )
    assert "`--model` must name one model" in capsys.readouterr().err


@pytest.mark.extended
@pytest.mark.parametrize(("command", "said"), [("needs", "nothing to compare"), ("curve", "nothing to draw")])
def test_where_all_runs_fail_nothing_is_claimed(folder, capsys, monkeypatch, command, said):
    def fail(*given, **more):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mtl_zoo.benchmark.runner._train", fail)
    words = ["--table", "visits.csv", "--task", "click", "--model", "shared_bottom", "--set", "tower_units=2"]
    words += ["--baselines", "none", "--seeds", "1", "--out", "failed"]
    assert mtl_zoo_cli.main(["bench", command, *words]) == 1
    shown = capsys.readouterr()
    assert said in shown.err and "keep them" not in shown.out
    assert [file.suffix for file in (folder / "failed").iterdir()] == [".csv"]
