import shutil

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.datasets import load_dataset, verify_dataset
from mtl_zoo.datasets.aliexpress import CATEGORICAL, COLUMNS, NUMERIC, held_out_searches


def make_table(rows, seed):
    rng = np.random.default_rng(seed)
    table = {"search_id": rng.integers(rows // 5, size=rows)}
    table |= {c: rng.integers(4, size=rows) for c in CATEGORICAL}
    table |= {c: rng.random(rows).round(6) for c in NUMERIC}
    table["click"] = (rng.random(rows) < 0.5).astype(int)
    table["conversion"] = table["click"] * (rng.random(rows) < 0.5)
    return pd.DataFrame(table)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "aliexpress" / "NL").mkdir(parents=True)
    make_table(300, 0).to_csv(tmp_path / "aliexpress" / "NL" / "train.csv", index=False)
    make_table(80, 1).to_csv(tmp_path / "aliexpress" / "NL" / "test.csv", index=False)
    return tmp_path


def rewrite(folder, change, part="train"):
    path = folder / "aliexpress" / "NL" / f"{part}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_load(folder):
    data = load_dataset("aliexpress", folder)
    assert len(data.train) + len(data.validation) == 300 and len(data.test) == 80
    assert not set(data.train.groups["search_id"]) & set(data.validation.groups["search_id"])
    assert len(set(data.validation.groups["search_id"])) == 6
    assert [f.kind for f in data.features] == ["categorical"] * 16 + ["numeric"] * 63
    assert data.train.inputs["numerical_1"].mean() == pytest.approx(0, abs=1e-5)
    assert data.train.inputs["numerical_1"].std() == pytest.approx(1, abs=1e-5)
    assert [(t.name, t.sample_space) for t in data.tasks] == [("click", None), ("conversion", "click")]
    other = load_dataset("aliexpress", folder, seed=1)
    assert set(other.validation.groups["search_id"]) != set(data.validation.groups["search_id"])
    assert other.version == data.version and data.variant == "NL"


def test_the_other_folder_name_and_max_rows(folder):
    (folder / "aliexpress" / "NL").rename(folder / "AliExpress_NL")
    data = load_dataset("aliexpress", folder, max_rows=100)
    assert len(data.train) + len(data.validation) == 100 and data.variant == "NL,max_rows=100"


def test_missing_country(folder):
    with pytest.raises(FileNotFoundError, match=r"Expected: US/train.csv or AliExpress_US/train.csv"):
        load_dataset("aliexpress", folder, country="US")


def test_a_file_of_another_layout(folder):
    rewrite(folder, lambda table: table.drop(columns="numerical_63"))
    with pytest.raises(ValueError, match=r"`train.csv` must have the header .*without \['numerical_63'\]"):
        load_dataset("aliexpress", folder)


def test_labels_must_be_a_funnel(folder):
    rewrite(folder, lambda table: table.assign(click=0))
    with pytest.raises(ValueError, match=r"`conversion` must be 0 where click is 0. Received: \d+ rows"):
        load_dataset("aliexpress", folder)
    rewrite(folder, lambda table: table.assign(click=2))
    with pytest.raises(ValueError, match=r"`click` must be 0 or 1. Received 300 others in .*: \[2\]"):
        verify_dataset("aliexpress", folder)


def test_verify_counts(folder):
    checks = verify_dataset("aliexpress", folder)
    assert [c.what for c in checks] == ["NL train", "NL test"] and checks[0].found.startswith("300 rows, ")


def test_held_out_searches_never_take_all():
    searches = np.repeat(np.arange(40), 3)
    held_out = held_out_searches(searches, 0)
    assert held_out.sum() == 12 and all(len(set(held_out[i * 3 : i * 3 + 3])) == 1 for i in range(40))
    assert held_out_searches(np.array([1, 2]), 0).sum() == 1
    with pytest.raises(ValueError, match=r"`search_id` must have at least two values to split by. Received: \[5\]"):
        held_out_searches(np.array([5, 5]), 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"country": "RU"}, "Received: country='RU'. Expected: one of 'NL', 'ES', 'FR', 'US'"),
        ({"max_rows": 0}, "`max_rows` must be a whole number >= 2"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
    ],
)
def test_refuses(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        load_dataset("aliexpress", tmp_path, **options)


def test_columns():
    assert len(COLUMNS) == 82


@pytest.mark.real_data
@pytest.mark.parametrize("source", ["torch_rechub/aliexpress_{}_sample.csv", "fuxictr/tiny_mtl_{}.csv"])
def test_real_samples(data_dir, tmp_path, source):
    (tmp_path / "ES").mkdir()
    for part in ("train", "test"):
        shutil.copy(data_dir / "samples" / source.format(part), tmp_path / "ES" / f"{part}.csv")
    assert len(verify_dataset("aliexpress", tmp_path)) == 2
    # Samples of a hundred rows hold too few clicks to be trained on; what matters is that they parse.
    from mtl_zoo.datasets.aliexpress import _read

    assert list(_read(tmp_path / "ES" / "train.csv", None).columns) == list(COLUMNS)
