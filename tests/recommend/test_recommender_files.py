"""A recommender with an index, in its folder, and as one saved model."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from recommended import ANN, WEIGHTS, make_model

from mtl_zoo import (
    RetrievalTask,
)
from mtl_zoo._files import DamagedFile
from mtl_zoo.recommend import (
    MMR,
    CategoryCap,
    ExactIndex,
    Powers,
    Recommender,
)

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def with_retrieval(tables):
    rows = tables[2].assign(watch=1)
    return make_model(rows, RetrievalTask("watch", tower_units=(6,), item="item_id"))


def fetching(model, tables, index=None, **arguments):
    users, items, _ = tables
    index = ExactIndex() if index is None else index
    options = {"users": users, "sides": {"hour": "user"}, "fusion": WEIGHTS, "index": index, "candidates": 12}
    return Recommender(model, items, **(options | arguments))


def nearest(model, tables, user, count):
    """Ids of the items with the largest products, by vectors of tables."""
    users, items, _ = tables
    row = {"age": users["age"][user["user_id"]], **user}
    vector = model.user_vectors(pd.DataFrame({name: [value] for name, value in row.items()}))[0]
    affinity = model.item_vectors(items.drop(columns="tags")) @ vector
    return items["item_id"].to_numpy()[np.argsort(-affinity, kind="stable")[:count]]


def test_an_index_gives_the_candidates(with_retrieval, tables, tmp_path):
    recommender = fetching(with_retrieval, tables, rerank=MMR("vector", 0.5))
    assert recommender.tasks == ["click", "buy", "watch"]
    wanted = nearest(with_retrieval, tables, ANN, 12)
    shown = recommender.recommend(ANN, 12)
    assert set(shown["item"]) == set(wanted)
    ranked = recommender.recommend(ANN, 5, rerank=())
    every = recommender.recommend(ANN, 5, rerank=(), candidates=list(wanted))
    pd.testing.assert_frame_equal(ranked, every, rtol=1e-6)
    hidden = list(wanted[:3])
    left = recommender.recommend(ANN, 12, exclude=hidden)
    assert set(left["item"]) == set(nearest(with_retrieval, tables, ANN, 15)) - set(hidden)
    assert len(recommender.recommend(ANN, 20)) == 20  # more than `candidates`

    recommender.add_items(pd.DataFrame({"item_id": ["new"], "genre": ["b"], "price": [0.3], "tags": [["x"]]}))
    recommender.update_items({"item_id": ["i4"], "genre": ["a"], "price": [0.9]})
    recommender.remove_items(["i7", "i8"])
    again = fetching(with_retrieval, (tables[0], recommender.items, tables[2]), rerank=MMR("vector", 0.5))
    np.testing.assert_allclose(recommender.catalogue.vectors, again.catalogue.vectors, rtol=1e-5)
    pd.testing.assert_frame_equal(recommender.recommend(ANN, 12), again.recommend(ANN, 12), rtol=1e-5)
    recommender.save(tmp_path / "kept")
    recommender.save(tmp_path / "kept")  # in its own place, the index's folder within it
    loaded = Recommender.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(loaded.recommend(ANN, 12), recommender.recommend(ANN, 12), rtol=1e-5)


def test_an_index_needs_vectors(model, with_retrieval, tables):
    with pytest.raises(ValueError, match="retrieval task"):
        fetching(model, tables)
    with pytest.raises(ValueError, match="`index` must be an index"):
        fetching(with_retrieval, tables, index="exact")


@pytest.mark.slow
def test_one_saved_model_fetches_and_ranks(with_retrieval, tables, tmp_path):
    import tensorflow as tf

    recommender = fetching(with_retrieval, tables)
    whole = pd.DataFrame([{"age": 20.0, **ANN}, {"age": 33.0, **ANN, "user_id": 5, "history": ["i9"]}])
    recommender.export(tmp_path / "out", k=6, example=whole)
    module = tf.saved_model.load(str(tmp_path / "out"))
    transform = with_retrieval.transform
    raw = {n: tf.constant(a) for n, a in transform.raw_arrays_of(whole, recommender.user_columns).items()}
    shown = [item.decode() for item in module.recommend(raw)["item"].numpy().ravel()]
    assert shown == recommender.recommend(whole, 6)["item"].tolist()
    hidden = [shown[:4], recommender.items["item_id"].tolist()[4:]]
    given = module.recommend_without(raw, tf.ragged.constant(hidden).to_tensor(""))
    wanted = recommender.recommend(whole, 6, exclude=hidden)["item"].tolist()
    assert [item.decode() for item in given["item"].numpy().ravel() if item] == wanted and len(wanted) == 10


def test_a_folder_holds_all_of_it(model, tables, tmp_path):
    users, items, rows = tables
    recommender = Recommender(
        model,
        items,
        users=users,
        sides={"hour": "user"},
        fusion=Powers({"click": 1, "buy": 0.5}, floors={"click": 0.1}),
        rerank=[MMR("tags", 0.5), CategoryCap("genre", most=3)],
        exclude=rows[["user_id", "item_id"]],
        candidates=30,
    )
    recommender.save(tmp_path / "kept")
    loaded = Recommender.load(tmp_path / "kept")
    assert loaded.fusion == recommender.fusion and loaded.stages == recommender.stages
    pd.testing.assert_frame_equal(loaded.recommend(ANN, 8), recommender.recommend(ANN, 8), rtol=1e-6)
    loaded.remove_items(["i3"])
    loaded.save(tmp_path / "kept")  # in its own place
    assert "i3" not in set(Recommender.load(tmp_path / "kept").items["item_id"])

    with pytest.raises(ValueError, match="`rerank` must be stages"):
        Recommender(model, items, sides={"hour": "user"}, rerank=lambda c, k, rng: c).save(tmp_path / "function")
    assert not (tmp_path / "function").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(ValueError, match="letter.txt"):
        recommender.save(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="recommender.json"):
        Recommender.load(tmp_path / "mine")


def damage(folder, name):
    """What may befall a folder, by the name of the damage."""
    meta = json.loads((folder / "recommender.json").read_text())
    if name.startswith("cut "):
        path = folder / name.removeprefix("cut ")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name.startswith("without "):
        (folder / name.removeprefix("without ")).unlink()
    elif name == "another model":
        (folder / "model.keras").write_bytes(b"PK\x03\x04 no archive")
    elif name == "a link":
        (folder / "items.parquet").unlink()
        (folder / "items.parquet").symlink_to("/etc/passwd")
    else:
        meta |= {
            "newer": {"format": 99},
            "unknown stage": {"rerank": [{"kind": "os.system"}]},
            "unknown fusion": {"fusion": {"kind": "formula", "text": "__import__('os')"}},
            "wrong type": {"candidates": "many"},
            "another side": {"sides": {"hour": "up"}},
            "another column": {"item": "../price"},
        }[name]
        (folder / "recommender.json").write_text(json.dumps(meta))


DAMAGES = (
    *("cut recommender.json", "cut items.parquet", "cut model.keras", "without items.parquet", "without model.keras"),
    *("another model", "a link", "newer", "unknown stage", "unknown fusion", "wrong type", "another side"),
    "another column",
)


def test_damaged_folders_are_named(recommender, tmp_path):
    recommender.save(tmp_path / "kept")
    for name in DAMAGES:
        folder = tmp_path / name.replace(" ", "_")
        shutil.copytree(tmp_path / "kept", folder)
        damage(folder, name)
        with pytest.raises(ValueError, match=folder.name) as caught:
            Recommender.load(folder)
        assert name == "newer" or isinstance(caught.value, DamagedFile), name


@pytest.mark.slow  # some ten traces of the graph
def test_one_saved_model_gives_the_same_lists(recommender, model, tmp_path):
    import tensorflow as tf

    users = [ANN, {"user_id": 99, "history": [], "hour": 23, "age": 30.0}, {**ANN, "user_id": 7}]
    frame = recommender.known_users.rows(users[:1])[0]
    assert recommender.export(tmp_path / "out", k=7, example=frame)["history"] == "history"
    module = tf.saved_model.load(str(tmp_path / "out"))
    whole = pd.DataFrame([{"age": 20.0, **user} for user in users])
    raw = {n: tf.constant(a) for n, a in model.transform.raw_arrays_of(whole, recommender.user_columns).items()}
    given = module.signatures["serving_default"](**raw)
    wanted = recommender.recommend(whole, 7)
    assert [item.decode() for item in given["item"].numpy().ravel()] == wanted["item"].tolist()
    for name in ("score", "click", "buy"):
        np.testing.assert_allclose(given[name].numpy().ravel(), wanted[name], rtol=1e-5)
    hidden = [["i1", "i2", "i3"], [*recommender.items["item_id"][3:]], ["i9"]]
    padded = tf.ragged.constant(hidden).to_tensor("")
    given = module.recommend_without(raw, padded)
    wanted = recommender.recommend(whole, 7, exclude=hidden)
    shown = [item.decode() for item in given["item"].numpy().ravel()]
    assert [item for item in shown if item] == wanted["item"].tolist() and shown[10:14] == [""] * 4
    with pytest.raises(ValueError, match="overwrite=True"):
        recommender.export(tmp_path / "out", example=frame)
    with pytest.raises(ValueError, match="`example` must be a user's row"):
        recommender.export(tmp_path / "other")
