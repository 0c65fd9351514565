import io

import numpy as np
import pandas as pd
import pytest
from published import check_same, rows_of, write

from mtl_zoo.datasets import druglib, load_dataset, verify_dataset
from mtl_zoo.datasets.druglib import EFFECTIVENESS, SIDE_EFFECTS

NAMES = ("urlDrugName", "rating", "effectiveness", "sideEffects", "condition")
REVIEWS = ("benefitsReview", "sideEffectsReview", "commentsReview")


def table(rows, seed):
    rng = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "urlDrugName": [f"drug-{i}" for i in rng.integers(0, 25, rows)],
            "rating": rng.integers(1, 11, rows),
            "effectiveness": rng.choice(EFFECTIVENESS, rows),
            "sideEffects": rng.choice(SIDE_EFFECTS, rows),
            "condition": rng.choice([" Acne", "acne ", "NA", "null"], rows),
            "benefitsReview": [f'said "fine"\r\nand\tmore {i}' for i in range(rows)],
            "sideEffectsReview": ["" if i % 2 else "naïve: none" for i in range(rows)],
            "commentsReview": "-",
        }
    )
    return made.rename_axis("")


def tsv(made):
    text = io.StringIO()
    made.to_csv(text, sep="\t")
    return text.getvalue().encode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    files = {"drugLibTrain_raw.tsv": tsv(table(200, 0)), "drugLibTest_raw.tsv.gz": tsv(table(60, 1))}
    write(tmp_path / "druglib", files)
    monkeypatch.setattr(druglib, "COUNTS", {"train": 200, "test": 60})
    return tmp_path


def test_official_split_and_texts(folder):
    data = load_dataset("druglib", folder)
    assert [len(split) for split in data.splits.values()] == [180, 20, 60]
    assert [task.kind for task in data.tasks] == ["regression", "multiclass", "multiclass"]
    raw, original = data.test.raw, table(60, 1).reset_index(drop=True)
    assert raw["review"][0] == 'said "fine" and more 0 naïve: none -' and raw["side_effects_review"][1] == ""
    assert set(raw["condition"]) == {"acne", "na", "null"}
    np.testing.assert_array_equal(data.test.labels["rating"], original["rating"])
    expected = [EFFECTIVENESS.index(name) for name in original["effectiveness"]]
    np.testing.assert_array_equal(data.test.labels["effectiveness"], expected)
    assert data.table("test")["name"][0].startswith("drug ")
    assert rows_of(data)["drug"].nunique() == len(data.entities["drug"])
    check_same(data, load_dataset("druglib", folder))


def test_cold_drugs(folder):
    data = load_dataset("druglib", folder, split="cold_items")
    drugs = [set(split.raw["drug"]) for split in data.splits.values()]
    assert not drugs[0] & drugs[1] and not drugs[0] & drugs[2] and not drugs[1] & drugs[2]
    assert (data.test.inputs["drug"] == 1).all() and len(rows_of(data)) == 260
    assert "100.0% of the test rows are of drugs without a training row" in data.notes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rating": 11}, r"`rating` must be 1 to 10. Received 60 others in .*drugLibTest_raw.tsv"),
        ({"effectiveness": "Fine"}, r"`effectiveness` must be one of Ineffective, .*Received 60 others .*\['Fine'\]"),
        ({"sideEffects": ""}, r"`side_effects` must be one of No Side Effects, "),
    ],
)
def test_altered_files_are_refused(folder, change, text):
    (folder / "druglib" / "drugLibTest_raw.tsv.gz").unlink()
    write(folder / "druglib", {"drugLibTest_raw.tsv": tsv(table(60, 1).assign(**change))})
    with pytest.raises(ValueError, match=text):
        load_dataset("druglib", folder)


def test_other_columns_and_counts_are_refused(folder, monkeypatch):
    with pytest.raises(ValueError, match="Received: split='time'. Expected: one of 'official', 'cold_items'"):
        load_dataset("druglib", folder, split="time")
    assert all(c.ok for c in verify_dataset("druglib", folder))
    monkeypatch.setattr(druglib, "COUNTS", {"train": 200, "test": 61})
    with pytest.raises(ValueError, match="`rows of the test file` must be that of the official files. Received: 60"):
        load_dataset("druglib", folder)
    write(folder / "druglib", {"drugLibTrain_raw.tsv": tsv(table(9, 0).drop(columns="rating"))})
    with pytest.raises(ValueError, match=r"`drugLibTrain_raw.tsv` must have the columns .*without \['rating'\]"):
        load_dataset("druglib", folder)


@pytest.mark.real_data
def test_real_files(data_dir):
    assert all(c.ok for c in verify_dataset("druglib", data_dir))
    data = load_dataset("druglib", data_dir)
    assert [len(split) for split in data.splits.values()] == [2_797, 310, 1_036]
    rows = rows_of(data)
    assert rows["rating"].mean() == pytest.approx(6.95, abs=0.01) and (rows["review"].str.len() > 10).mean() > 0.99
