"""The studies of cold items, on tables that are made up and tiny random language models."""

import importlib

import numpy as np
import pandas as pd
import pytest
from language_folders import bert_folder, llama_folder

from benchmarks.studies import _cases, _language, cold_drugs, cold_text
from mtl_zoo import BinaryTask, RegressionTask

pytestmark = pytest.mark.tensorflow
WORDS = ("good film", "bad dog", "the cafe", "a long, long film", "dog and film", "bad bad")


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """The studies with both language models there, and afterwards as they were."""
    folder = tmp_path_factory.mktemp("models")
    bert_folder(folder / _language.MINILM)
    llama_folder(folder / _language.SMOLLM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_language.FOLDER, str(folder))
        patch.setenv("MTL_ZOO_CACHE", str(folder / "cache"))
        patch.setenv("MTL_ZOO_DATA", str(folder))
        for study in (cold_text, cold_drugs):
            importlib.reload(study)
        yield
    for study in (cold_text, cold_drugs):
        importlib.reload(study)


def films(count=1200, seed=0):
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 30, count)
    rating = np.clip(3 + item % 3 - 1 + rng.integers(-1, 2, count), 1, 5)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, count),
            "item_id": item,
            "rating": rating,
            "like": (rating >= 4).astype(int),
            "title": [f"film {i}" for i in item],
            "summary": [WORDS[i % 6] if i else None for i in item],
            "genres": [["1|2", "3"][i % 2] for i in item],
        }
    )


def drugs(folder):
    table = films(400).rename(columns={"item_id": "drug", "summary": "review", "genres": "condition"})
    return table.assign(drug="d" + table["drug"].astype(str), well=table["like"], harm=1 - table["like"])


def read(out):
    rows = pd.read_csv(out)
    return rows, pd.read_csv(out.with_name(f"{out.stem}-differences.csv"))


@pytest.mark.slow
def test_language_models_are_cases_of_films(tmp_path, monkeypatch):
    monkeypatch.setattr(cold_text, "ratings", lambda folder: films())
    for name, rows in (("FEW", 200), ("TESTED", 60), ("ASKED", 40)):
        monkeypatch.setattr(cold_text, name, rows)
    out, asked = tmp_path / "films.csv", "prompt of a decoder, 2 examples"
    few, lora = "ids, 4000 rows", "MiniLM, LoRA, 4000 rows, 1 epoch"
    cases = ["ids", "MiniLM, frozen", few, lora, asked]
    cold_text.main(
        ["--out", str(out), "--seeds", "1", "--held-out", "8", "--epochs", "1", "--resamples", "5", "--cases", *cases]
    )
    rows, found = read(out)
    sizes = rows.groupby("case")["rows"].max()
    assert sizes[asked] == 40 and sizes[lora] == 60 and sizes["ids"] == sizes["MiniLM, frozen"] > 60
    assert set(rows.loc[rows["case"] == asked, "task"]) == {"like"}
    pairs = set(zip(found["case"], found["base"], strict=True))
    assert pairs == {("MiniLM, frozen", "ids"), (few, "ids"), (lora, few), (asked, "ids")}
    kept = np.load(tmp_path / "films-scores" / f"{''.join(c if c.isalnum() else '-' for c in asked)}-0.npz")
    assert np.isfinite(kept["cold.like"]).sum() == 40 < len(kept["cold.like"])


@pytest.mark.slow
def test_language_models_are_cases_of_drugs(tmp_path, monkeypatch):
    monkeypatch.setattr(cold_drugs, "rows", drugs)
    monkeypatch.setattr(cold_drugs, "ASKED", 20)
    out, cases = tmp_path / "drugs.csv", ["ids", "MiniLM, LoRA, 3 epochs", "prompt of a decoder, 0 examples"]
    cold_drugs.main(["--out", str(out), "--seeds", "1", "--epochs", "1", "--resamples", "5", "--cases", *cases])
    rows, found = read(out)
    assert rows.groupby("case")["epochs"].max().to_dict() == dict(zip(cases, (1, 3, 0), strict=True))
    assert found.groupby("case")["task"].agg(set).to_dict() == {
        "MiniLM, LoRA, 3 epochs": {"well", "harm", "rating"},
        "prompt of a decoder, 0 examples": {"well", "harm"},
    }


def test_cases_are_compared_on_the_rows_that_both_have():
    study = _cases.Study(
        "", "", [BinaryTask("like"), RegressionTask("stars")], {"like": "auc", "stars": "rmse"}, "item", {}
    )
    test = pd.DataFrame({"item": [0, 1, 2, 3, 4, 5], "like": [0, 1, 0, 1, 0, 1], "stars": [1.0, 2, 3, 4, 5, 6]})
    base = {"like": np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), "stars": np.zeros(6)}
    other = {"like": np.array([0.5, 0.4, 0.1, 0.9, np.nan, np.nan])}
    found = study.differences({0: test}, {0: base}, {0: other}, resamples=3)
    assert list(found) == ["like"]
    # Of rows 0..3: the base orders 3 of 4 pairs, the other 3 of 4 as well (.4 is below .5).
    assert found["like"][0] == pytest.approx(0.0)


def test_samples_of_a_seed_are_nested_and_in_order():
    table = pd.DataFrame({"x": range(50)})
    few, more = (_cases.sample(table, rows, seed=1) for rows in (5, 20))
    assert set(few) < set(more) and (np.diff(more) > 0).all()
    assert len(_cases.sample(table, None, 1)) == len(_cases.sample(table, 99, 1)) == 50


def test_words_are_counted_and_missing_texts_stay():
    assert _language.words(pd.Series(["a b  c", "a", None]), 2).tolist()[:2] == ["a b", "a"]
    assert _language.words(pd.Series(["a b  c", None], dtype=object), 2).isna().tolist() == [False, True]
