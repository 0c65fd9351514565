"""Baselines: what each computes, on which columns, and how their rows stand beside those of networks."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import Categorical, Sequence, Text
from mtl_zoo.benchmark.baselines import (
    BASELINES,
    Boosting,
    Constant,
    Linear,
    Popularity,
    _columns,
    columns_of,
    fit_baseline,
    list_baselines,
)
from mtl_zoo.benchmark.config import RunConfig, configs_from_dict
from mtl_zoo.benchmark.hyperparameters import resolve_hyperparameters
from mtl_zoo.benchmark.results import ResultStore
from mtl_zoo.benchmark.runner import run_config
from mtl_zoo.benchmark.summary import summarise
from mtl_zoo.datasets import Dataset
from mtl_zoo.evaluation import evaluate_scores
from mtl_zoo.models import list_models


def table(rows=600):
    rng = np.random.default_rng(0)
    item, x = rng.integers(0, 12, rows), rng.normal(size=rows)
    made = pd.DataFrame({"item": [f"i{i}" for i in item], "hour": rng.integers(0, 8, rows), "x": x})
    made["side"] = rng.choice(["a", "b"], rows)
    # Neither x nor side alone tells the click.
    made["click"] = (rng.random(rows) < np.where((x > 0) == (made["side"] == "a"), 0.9, 0.1)).astype(int)
    made["buy"] = np.where(made["click"] == 1, item % 3 == 0, 0).astype(int)
    made["stars"], made["colour"] = item + 0.1 * x, rng.choice(["red", "blue", "green"], rows)
    made.loc[rng.random(rows) < 0.1, ["x", "side"]] = np.nan, None
    return made


TASKS = {"click": None, "buy": {"kind": "binary", "sample_space": "click"}, "stars": None, "colour": None}


@pytest.fixture(scope="module")
def data():
    return Dataset.from_table(table(), tasks=TASKS)


@pytest.fixture(scope="module")
def columns(data):
    return columns_of(data, data.features)


def fitted(baseline, data, columns):
    model, _ = fit_baseline(baseline, data, columns=columns)
    return model, model.predict(columns["test"])


def test_columns_are_numbers_and_ids_as_a_user_would_read_them(data, columns):
    found = columns["test"]
    assert found.numbers == ("hour", "x") and found.ids == ("item", "side") and found.left_out == ()
    assert found.codes == ("hour as a category",)
    np.testing.assert_array_equal(found.frame["x"], data.test.raw["x"])  # raw, with its holes
    assert found.frame["side"].isna().any() and found.frame["hour"].dtype == "float64"


def test_constant_is_the_mean_and_the_shares_of_the_training_rows(data, columns):
    _, scores = fitted(Constant(), data, columns)
    clicked = data.train.labels["click"] == 1
    np.testing.assert_allclose(scores["click"][:, 0], clicked.mean())
    np.testing.assert_allclose(scores["buy"][0, 0], data.train.labels["buy"][clicked].mean())
    np.testing.assert_allclose(scores["stars"][0, 0], data.train.labels["stars"].mean(), rtol=1e-6)
    np.testing.assert_allclose(scores["colour"][0], np.bincount(data.train.labels["colour"].astype(int)) / len(clicked))


def test_popularity_is_the_smoothed_rate_of_the_most_telling_column(data, columns):
    model, scores = fitted(Popularity(smoothing=5.0), data, columns)
    assert model.notes["buy"] == "by item" and model.notes["stars"] == "by item"
    train = data.train.raw
    mean = data.train.labels["stars"].astype("float64").mean()
    expected = [
        (train.loc[train["item"] == item, "stars"].sum() + 5 * mean) / ((train["item"] == item).sum() + 5)
        for item in data.test.raw["item"]
    ]
    np.testing.assert_allclose(scores["stars"][:, 0], expected, rtol=1e-5)
    new = columns["test"].rows([0])
    new.frame["item"] = "never seen"
    np.testing.assert_allclose(model.predict(new)["stars"][0, 0], mean, rtol=1e-6)


def test_linear_is_ridge_on_standardised_numbers(columns):
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 2.0, 300)
    own = Dataset.from_table(pd.DataFrame({"x": x, "y": 2 * x + rng.normal(size=300)}), tasks={"y": "regression"})
    model, found = fit_baseline(Linear(strengths=(1.0,)), own)
    train, test = own.train.raw, own.test.raw
    z, w = (train["x"] - train["x"].mean()) / train["x"].std(ddof=0), train["y"] - train["y"].mean()
    slope = (z @ w) / (z @ z + 1.0)
    expected = train["y"].mean() + slope * (test["x"] - train["x"].mean()) / train["x"].std(ddof=0)
    np.testing.assert_allclose(model.predict(found["test"])["y"][:, 0], expected, rtol=1e-4)


def test_boosting_finds_what_a_linear_model_cannot_and_takes_categories_as_such(data, columns):
    def auc(baseline, columns=columns):
        model, scores = fitted(baseline, data, columns)
        rows = evaluate_scores(model, data.test, scores, products=True).set_index(["task", "metric"])["value"]
        assert ("click_and_buy", "auc") in rows.index and np.isfinite(rows["colour", "accuracy"])
        np.testing.assert_allclose(scores["colour"].sum(axis=1), 1.0, rtol=1e-6)
        return rows["click", "auc"], scores["click"]

    trees, scores = auc(Boosting(max_trees=20))
    assert trees > 0.75 > auc(Linear(strengths=(0.1,)))[0]
    renamed = {name: part.rows(np.arange(len(part))) for name, part in columns.items()}  # copies
    for part in renamed.values():
        part.frame["item"] = part.frame["item"].map(lambda value: value[::-1])
    np.testing.assert_allclose(auc(Boosting(max_trees=20), renamed)[1], scores)


def test_no_baseline_has_the_name_of_a_model_and_options_are_checked():
    assert not set(list_baselines()) & set(list_models()) and set(list_baselines()) == set(BASELINES)
    assert resolve_hyperparameters("popularity", {"smoothing": 2.0}) == {"smoothing": 2.0}
    with pytest.raises(ValueError, match="`hyperparameters` must be arguments of 'boosting'. Received: 'trees'"):
        resolve_hyperparameters("boosting", {"trees": 3})
    with pytest.raises(ValueError, match=r"`model` must be one of .* Received: model='boostin' \(did you mean 'boost"):
        resolve_hyperparameters("boostin", {})
    with pytest.raises(ValueError, match="`smoothing` must be a finite number and > 0"):
        Popularity(smoothing=0)
    with pytest.raises(ValueError, match="`max_trees` must be a whole number >= 1"):
        Boosting(max_trees=0)
    with pytest.raises(ValueError, match=r"`strengths\[0\]` must be"):
        Linear(strengths=(0,))


def test_a_table_gets_baselines_and_other_data_does_not():
    def models(dataset, **more):
        return [config.model for config in configs_from_dict({"dataset": dataset, "models": {"mmoe": {}}, **more})]

    assert models("visits.csv") == [*list_baselines(), "mmoe"]
    assert models("visits.csv", baselines=[]) == models("synthetic_funnel") == ["mmoe"]
    assert models("synthetic_funnel", baselines=["linear"]) == ["linear", "mmoe"]
    (linear,) = configs_from_dict({"dataset": "a.csv", "models": ["linear"], "baselines": [], "epochs": 9, "seeds": 3})
    assert linear.is_baseline and linear.all_seeds == (0,) and linear.epochs == RunConfig("a.csv", "linear").epochs
    with pytest.raises(ValueError, match="`baselines` must be one of the known values. Received: baselines='mmoe'"):
        models("visits.csv", baselines=["mmoe"])


def test_rows_of_a_baseline_do_not_depend_on_how_networks_are_trained(tmp_path, data):
    store = ResultStore(tmp_path / "rows.csv")
    first = run_config(RunConfig("t", "popularity"), store, dataset=data, save_scores=tmp_path)
    assert first.finished == 1 and run_config(RunConfig("t", "popularity", epochs=9), store, dataset=data).skipped == 1
    rows = store.read()
    assert set(rows["split"]) == {"validation", "test"} and set(rows["task"]) >= {"click", "buy", "stars", "colour"}
    assert json.loads(rows["hyperparameters"][0]) == {"smoothing": 10.0} and (rows["error"] == "").all()
    (file,) = tmp_path.glob("*.npz")
    assert len(np.load(file)["click"]) == len(data.test)


def test_labels_that_no_baseline_can_learn_are_named(data):
    unseen = data.train.labels["buy"].copy()
    try:
        data.train.labels["buy"][:] = np.nan
        with pytest.raises(ValueError, match="`buy` must be observed in the training rows"):
            fit_baseline(Constant(), data)
    finally:
        data.train.labels["buy"][:] = unseen


def test_columns_of_other_types_are_read_as_the_networks_read_them():
    made = table(90)
    made["code"] = pd.Categorical(np.arange(90) % 3)
    made["day"] = pd.date_range("2024-01-01", periods=3).date.repeat(30)
    made["at"], made["at.hour"] = pd.date_range("2024-01-01", periods=90, freq="h"), 0.5 + np.arange(90)
    made.loc[made.index[::9], "x"] = np.inf
    data = Dataset.from_table(made, tasks={"click": None})
    columns = columns_of(data, data.features)["train"]
    assert "code" in columns.ids and "day.weekday" in columns.numbers and not columns.left_out
    assert np.isfinite(columns.frame[list(columns.numbers)].fillna(0)).all(axis=None)
    # A column of the table keeps its name, and that which is made of a moment gets another.
    assert columns.frame["at.hour"].min() >= 0.5 and "at.hour'" in columns.numbers
    assert len(set(columns.numbers)) == len(columns.numbers)
    for name in list_baselines():
        model, read = fit_baseline(BASELINES[name](), data)
        assert np.isfinite(model.predict(read["test"])["click"]).all()


def test_without_a_column_that_a_baseline_reads_it_is_constant():
    made = pd.DataFrame({"review": ["so good", "so bad"] * 30, "click": [0, 1, 1] * 20})
    data = Dataset.from_table(made, tasks=("click",), features=[Text("review", dim=2)])
    assert columns_of(data, data.features)["test"].left_out == ("review",)
    for name in list_baselines():
        model, read = fit_baseline(BASELINES[name](), data)
        np.testing.assert_allclose(model.predict(read["test"])["click"], data.train.labels["click"].mean(), rtol=1e-6)


LISTS = {
    "multi-hot": Categorical("tags", multi_hot=True),
    "split strings": Categorical("tags", multi_hot=True),
    "sequence": Sequence("tags", length=3),
    "weights": Sequence("tags", length=3, weights=True),
}


@pytest.mark.parametrize("keep_raw", [True, False])
@pytest.mark.parametrize("kind", LISTS)
def test_lists_are_read_by_their_most_common_values(kind, keep_raw, monkeypatch):
    monkeypatch.setattr(_columns, "MOST_VALUES", 4)
    rng = np.random.default_rng(0)
    lists = [[*rng.choice(list("abbccc"), n), f"rare {i}"] for i, n in enumerate(rng.integers(0, 3, 300))]
    counts = np.array([[cell.count(value) for value in "cba"] for cell in lists])
    made = pd.DataFrame(
        {"tags": lists, "click": (rng.random(300) < np.where(counts[:, 1] > 0, 0.95, 0.05)).astype(int)}
    )
    if kind == "split strings":
        made["tags"] = made["tags"].map("|".join)
    if kind == "weights":
        made["tags"] = made["tags"].map(lambda cell: [(value, 0.5) for value in cell])
    data = Dataset.from_table(made.assign(row=np.arange(300.0)), tasks=("click",), features=[LISTS[kind]])
    rows = data.test.raw["row"].to_numpy("int64")
    if not keep_raw:
        for split in data.splits.values():
            split.raw = None
    found = columns_of(data, data.features[:1])
    assert found["test"].numbers == ("tags.0", "tags.1", "tags.2", "tags.3") and not found["test"].left_out
    assert not found["test"].ids
    expected = {"weights": 0.5 * counts, "sequence": counts}.get(kind, np.minimum(counts, 1))[rows]
    np.testing.assert_allclose(found["test"].frame[["tags.0", "tags.1", "tags.2"]], expected)
    for name in ("linear", "boosting"):
        model, _ = fit_baseline(BASELINES[name](), data, columns=found)
        table = evaluate_scores(model, data.test, model.predict(found["test"]), only=["auc"])
        assert table["value"].item() > 0.8, name


@pytest.mark.extended
def test_sections_of_a_table_that_was_changed_are_told_apart(tmp_path, data):
    store = ResultStore(tmp_path / "rows.csv")
    for version in ("1f", "2e"):
        run_config(RunConfig("t", "constant"), store, dataset=dataclasses.replace(data, version=version))
    first, second = (section.title for section in summarise(store.read()))
    assert first.endswith("version 1f") and second.endswith("version 2e")
