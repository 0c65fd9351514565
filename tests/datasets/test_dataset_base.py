import gzip

import numpy as np
import pytest

from mtl_zoo import BinaryTask, ReconstructionTask
from mtl_zoo.datasets import Dataset, Split, _base, dataset_info, list_datasets, load_dataset, verify_dataset
from mtl_zoo.datasets._base import fitted_dataset, register_dataset, shares
from mtl_zoo.datasets._files import (
    cache_folder,
    check_count,
    content_version,
    find_file,
    quick_version,
    read_bytes,
    search_roots,
)
from mtl_zoo.features.spec import Categorical, require_fitted


def make_split(rows=5):
    ids = np.arange(rows, dtype="int32")
    return Split(
        inputs={"x": ids},
        labels={"y": (ids % 2).astype("float32")},
        weights={"y": np.ones(rows, "float32")},
        groups={"user_id": ids},
        truth={"y": ids / rows},
    )


def test_split_sample_draws_rows_without_repeats_and_keeps_their_order():
    split = Split({"x": np.arange(50)}, {"y": np.arange(50.0)}, groups={"g": np.arange(50)})
    drawn = split.sample(20, seed=3)
    assert len(drawn) == 20 and (np.diff(drawn.inputs["x"]) > 0).all() and drawn.inputs["x"].max() > 20
    for part in (drawn.labels["y"], drawn.groups["g"], split.sample(20, seed=3).inputs["x"]):
        np.testing.assert_array_equal(part, drawn.inputs["x"])
    assert (split.sample(20, seed=4).inputs["x"] != drawn.inputs["x"]).any()
    np.testing.assert_array_equal(split.sample(50).inputs["x"], np.arange(50))
    with pytest.raises(ValueError, match="`n` must be at most the number of rows, 50. Received: n=51"):
        split.sample(51)
    with pytest.raises(ValueError, match="`n` must be a whole number >= 1"):
        split.sample(0)


def test_a_task_without_a_label_learns_nothing_from_labels():
    rows = make_split()
    tasks = (BinaryTask("y"), ReconstructionTask("masked"))
    data = Dataset("made", "small", "1", (Categorical("x", size=5),), tasks, rows, rows, rows, "none")
    assert data.tasks[1] == tasks[1] and [task.name for task in data.tasks] == ["y", "masked"]


def test_split_take_cuts_every_part():
    split = make_split().take(3)
    assert len(split) == 3
    assert [len(part[key]) for part, key in ((split.labels, "y"), (split.weights, "y"), (split.groups, "user_id"))] == [
        3,
        3,
        3,
    ]
    assert len(split.truth["y"]) == 3
    assert Split({"x": np.arange(4)}, {}, weights=np.ones(4)).take(2).weights.shape == (2,)
    with pytest.raises(ValueError, match=r"`n` must be a whole number >= 1. Received: n=0"):
        split.take(0)


def test_split_batches_are_dicts_and_shuffle_by_seed():
    batches = list(make_split().batches(2))
    inputs, labels, weights = batches[0]
    assert [len(batch[0]["x"]) for batch in batches] == [2, 2, 1]
    assert labels["y"].dtype == "float32" and weights["y"].shape == (2,)
    assert inputs["x"].numpy().tolist() == [0, 1]

    def order(seed):
        return [int(i) for batch in make_split(50).batches(8, shuffle=True, seed=seed) for i in batch[0]["x"]]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(50))


@pytest.mark.parametrize("name", list_datasets())
def test_every_loader_takes_dim_and_seed_and_tells_where_it_comes_from(name):
    info = dataset_info(name)
    assert {"embedding_dim", "seed"} <= set(info.options)
    assert info.options["embedding_dim"] == 16 and info.options["seed"] == 0
    assert info.summary and info.source and info.licence
    assert info.reads_files == bool(info.files)
    assert bool(info.resources) == (info.reads_files and info.login is None)


@pytest.mark.parametrize("name", [n for n in list_datasets() if dataset_info(n).reads_files])
def test_missing_files_are_one_clear_error(name, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name, tmp_path)
    text = str(error.value)
    assert str(tmp_path / dataset_info(name).folders[0]) in text and f"mtl-zoo data fetch {name}" in text
    assert "Expected: " in text
    with pytest.raises(FileNotFoundError, match=f"mtl-zoo data fetch {name}"):
        verify_dataset(name, tmp_path)


def test_unknown_names_and_options_list_what_exists():
    with pytest.raises(ValueError, match=r"Received: name='synthetic'. Expected: one of .*'synthetic_funnel'"):
        load_dataset("synthetic")
    with pytest.raises(
        TypeError, match=r"only the options of 'synthetic_funnel'. Received: sizes. Expected: any of size"
    ):
        load_dataset("synthetic_funnel", sizes="small")


def test_names_register_once():
    with pytest.raises(ValueError, match=r"`name` must not be taken. Received: 'synthetic_funnel'"):
        register_dataset("synthetic_funnel", source="", licence="")(lambda: None)


def test_generated_sets_take_a_data_dir_and_verify():
    data = load_dataset("synthetic_funnel", "/nowhere", size="small")
    assert repr(data) == (
        "Dataset('synthetic_funnel', variant='small', rows: train 20,000, validation 5,000, test 5,000; "
        "tasks: click, conversion)"
    )
    assert all(c.ok for c in verify_dataset("synthetic_funnel"))


def test_roots(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MTL_ZOO_DATA", raising=False)
    assert cache_folder() == tmp_path / "cache" / "mtl_zoo"
    assert search_roots() == [cache_folder()]
    monkeypatch.setenv("MTL_ZOO_DATA", str(tmp_path / "named"))
    assert search_roots() == [tmp_path / "named", cache_folder()]
    assert search_roots(tmp_path / "given") == [tmp_path / "given"]


def test_plain_or_gz_and_damaged_gz(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"hello" * 100))
    (folder / "b.csv").write_bytes(b"hello" * 100)
    a, b = (find_file([tmp_path / "none", tmp_path], ["other", "set"], name) for name in ("a.csv", "b.csv"))
    assert read_bytes(a) == read_bytes(b)
    assert content_version(read_bytes(a)) == content_version(read_bytes(b))
    assert quick_version([a]) != quick_version([b])
    assert find_file([tmp_path], ["set"], "c.csv") is None
    (folder / "a.csv.gz").write_bytes(a.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"`a.csv.gz` must be a whole file. Received: .*which breaks off"):
        read_bytes(a)


def test_counts_must_hold():
    check_count("rows", 3, 3)
    with pytest.raises(ValueError, match=r"`rows` must be that of the official files. Received: 2. Expected: 3"):
        check_count("rows", 3, 2)


def test_shares_cover_every_row_once():
    assert [list(range(7))[cut] for cut in shares(7, 0.5, 0.5)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert sum(len(range(101)[cut]) for cut in shares(101, 0.8, 0.1, 0.1)) == 101


def test_fitted_dataset_learns_from_train_only():
    import pandas as pd

    tables = {
        "train": pd.DataFrame({"c": ["a", "b", "a"], "y": [0, 1, 1]}),
        "validation": pd.DataFrame({"c": ["b"], "y": [0]}),
        "test": pd.DataFrame({"c": ["z"], "y": [1]}),
    }
    data = fitted_dataset(
        tables=tables,
        features=(Categorical("c"),),
        tasks=(BinaryTask("y"),),
        group_columns=("c",),
        name="n",
        variant="v",
        version="0",
        split_rule="as given",
    )
    assert isinstance(data, Dataset)
    require_fitted(data.features)
    assert data.test.inputs["c"].tolist() == [1]
    assert data.test.groups["c"].tolist() == ["z"]
    assert data.transform.is_fitted


def test_missing_files_say_where_they_are_from_and_on_what_terms(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Source: https://kuairand.com/ .*Licence: CC BY-SA 4.0\.$"):
        load_dataset("kuairand", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"Download the archive from https://www.kaggle.com.*Source: .*Licence: "
    ):
        verify_dataset("retailrocket", tmp_path)


def test_options_that_came_later_are_named_where_they_are_used(monkeypatch):
    def loader(*, old=1, new=2, embedding_dim=16, seed=0):
        return load_dataset("synthetic_funnel", size="small")

    entries = dict(_base._REGISTRY._entries)
    monkeypatch.setattr(_base._REGISTRY, "_entries", entries)
    register_dataset("aging", source="s", licence="l", later=("new",))(loader)
    assert set(load_dataset("aging").options) == {"old", "embedding_dim", "seed"}
    assert load_dataset("aging", new=3).options["new"] == 3


# Of KuaiRand, MIND, Ali-CCP and AliExpress there are formats alone.
REAL = (
    *("amazon_reviews", "bookcrossing", "census_income", "coat", "druglib", "hetrec_lastfm_2k", "movielens_100k"),
    *("movielens_1m", "retailrocket"),
)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", REAL)
def test_a_model_trains_on_each(name, data_dir):
    from mtl_zoo import create_model, evaluate

    data = load_dataset(name, data_dir, **({"variant": "nominal", "group": 1} if name == "census_income" else {}))
    train = data.train.sample(min(len(data.train), 5000))
    model = create_model("shared_bottom", data.features, data.tasks, bottom_units=(16,), tower_units=(8,))
    model.compile("auto")
    history = model.fit(train.batches(256, shuffle=True, seed=0), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    table = evaluate(model, data.test.sample(min(len(data.test), 2000)))
    assert set(table["task"]) >= {task.name for task in data.tasks}
