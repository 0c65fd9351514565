"""A recommender that keeps what the model makes of its items gives the lists of one that does not."""

import json

import numpy as np
import pandas as pd
import pytest
from recommended import ANN, ITEMS, WEIGHTS, make_model, spread

from mtl_zoo import Categorical, FeatureTransform, RetrievalTask, Sequence, SharedBottom
from mtl_zoo.recommend import ExactIndex, Recommender

pytestmark = pytest.mark.tensorflow


def both(model, tables, **options):
    users, items, _ = tables
    given = {"users": users, "fusion": WEIGHTS, "sides": {"hour": "user"}, **options}
    return Recommender(model, items, **given), Recommender(model, items, prepare=True, **given)


def assert_same_lists(plain, prepared, users=None):
    users = [ANN, {"user_id": 5, "history": ["i1"], "hour": 20}] if users is None else users
    expected, found = plain.recommend(users, ITEMS), prepared.recommend(users, ITEMS)
    assert found["item"].tolist() == expected["item"].tolist()
    for name in ("score", *WEIGHTS):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)


def test_lists_are_the_same_and_items_are_not_read_again(model, tables):
    plain, prepared = both(model, tables)
    assert_same_lists(plain, prepared)
    assert plain.catalogue.prepared is None and prepared.catalogue.prepared.bytes > 4 * ITEMS * 8
    assert_same_lists(plain, prepared, [ANN])
    graph = prepared.pairs._function(prepared.catalogue.prepared).graph
    vectors = prepared.catalogue.prepared.state.found[0].shape[1]
    kernels = [op.inputs[1].shape[0] for op in graph.get_operations() if op.type == "MatMul"]
    assert kernels and vectors not in kernels


def test_items_that_come_and_go(model, tables):
    plain, prepared = both(model, tables)
    new = pd.DataFrame({"item_id": ["new"], "genre": ["a"], "price": [0.3], "tags": [["x"]]})
    for one in (plain, prepared):
        one.remove_items(["i3", "i7"])
        one.add_items(new)
        one.update_items(pd.DataFrame({"item_id": ["i1", "new"], "price": [0.9, 0.1]}))
    assert_same_lists(plain, prepared)


def test_weights_that_change_are_seen(tables):
    model = make_model(tables[2])
    plain, prepared = both(model, tables)
    before = prepared.recommend(ANN, ITEMS)
    rng = np.random.default_rng(5)
    model.set_weights([w + rng.normal(0, 0.2, w.shape) if w.dtype.kind == "f" else w for w in model.get_weights()])
    assert_same_lists(plain, prepared)
    assert prepared.recommend(ANN, ITEMS)["score"].tolist() != before["score"].tolist()


def test_reasons_and_candidates(model, tables):
    plain, prepared = both(model, tables)
    expected, found = plain.reasons(ANN, 5), prepared.reasons(ANN, 5)
    assert found[["item", "task", "feature", "reason"]].equals(expected[["item", "task", "feature", "reason"]])
    some = ["i9", "i2", "i30"]
    assert (
        prepared.recommend(ANN, candidates=some)["item"].tolist()
        == plain.recommend(ANN, candidates=some)["item"].tolist()
    )


def test_a_history_that_looks_at_the_candidate(tables):
    rows = tables[2]
    features = [
        Sequence("history", key="item_id", length=4, side="user", dim=4, encoder="din", query="item_id"),
        Categorical("hour", dim=4, side="user"),
        Categorical("item_id", side="item", dim=4),
        Categorical("genre", side="item", dim=4),
    ]
    tasks = list(make_model(rows).tasks)
    model = spread(SharedBottom(FeatureTransform(features, tasks).fit(rows), bottom_units=(8,), tower_units=(4,)))
    assert_same_lists(*both(model, tables))


@pytest.mark.extended
def test_with_an_index_and_saved(tables, tmp_path):
    model = make_model(tables[2], RetrievalTask("find", label="click", item="item_id"))
    given = {"users": tables[0], "fusion": WEIGHTS, "sides": {"hour": "user"}, "candidates": 10}
    plain, prepared = (
        Recommender(model, tables[1], index=ExactIndex(), prepare=prepare, **given) for prepare in (False, True)
    )
    assert_same_lists(plain, prepared)
    prepared.save(tmp_path / "shop")
    again = Recommender.load(tmp_path / "shop")
    assert again.prepare and again.catalogue.prepared is not None
    assert_same_lists(plain, again)
    meta = tmp_path / "shop" / "recommender.json"
    older = {name: value for name, value in json.loads(meta.read_text()).items() if name != "prepare"}
    meta.write_text(json.dumps(older))
    assert not Recommender.load(tmp_path / "shop").prepare


def test_what_prepare_may_be(model, tables):
    with pytest.raises(ValueError, match="`prepare` must be one of"):
        Recommender(model, tables[1], prepare="yes", sides={"hour": "user"})
