"""`/recommend`: the lists of a saved recommender, over HTTP."""

import re

import pandas as pd
import pytest
from service_case import served

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Sequence, SharedBottom
from mtl_zoo.recommend import MMR, Recommender, WeightedSum
from mtl_zoo.service.servables import SavedRecommender, kind_in, load_servable

pytestmark = pytest.mark.tensorflow

ROWS = pd.DataFrame(
    {
        "user_id": [1, 1, 2, 3, 3, 2],
        "recent": [["a"], ["b", "a"], [], ["c"], ["a", "c"], ["b"]],
        "item_id": list("abcabc"),
        "genre": list("xyxxyx"),
        "click": [1, 0, 1, 0, 1, 0],
        "buy": [0, 0, 1, 0, 1, 0],
    }
)


@pytest.fixture(scope="module")
def recommender():
    features = [
        Categorical("user_id", side="user", dim=2),
        Categorical("item_id", side="item", dim=2),
        Sequence("recent", key="item_id", side="user", length=3, dim=2),
        Categorical("genre", side="item", dim=2),
    ]
    transform = FeatureTransform(features, [BinaryTask("click"), BinaryTask("buy")]).fit(ROWS)
    model = SharedBottom(transform, bottom_units=(4,), tower_units=(2,))
    items = pd.DataFrame({"item_id": list("abc"), "genre": list("xyx"), "genres": [["x"], ["y"], ["x"]]})
    users = pd.DataFrame({"user_id": [1, 2, 3], "recent": [["a"], ["b"], ["c"]]})
    return Recommender(
        model, items, users=users, fusion=WeightedSum({"click": 1, "buy": 1}), rerank=MMR("genres"), exclude=ROWS[:2]
    )


@pytest.fixture(scope="module")
def client(recommender, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommender") / "shop"
    recommender.save(folder / "1")
    assert kind_in(folder / "1").kind == "recommender"
    with served(folder, deadline=20.0) as made:
        yield made


def lists(found):
    return [[item["item"] for item in one["items"]] for one in found["recommendations"]]


def test_lists_are_those_of_the_recommender(client, recommender):
    users = [{"user_id": 1}, 2, {"user_id": 9, "recent": ["b", "c"]}]
    status, found = client.post("/recommend", {"users": users, "k": 2})
    assert status == 200, found
    assert [one["user"] for one in found["recommendations"]] == [1, 2, 9]
    for user, one in zip(users, found["recommendations"], strict=True):
        wanted = recommender.recommend(user if isinstance(user, dict) else {"user_id": user}, k=2)
        assert [item["item"] for item in one["items"]] == wanted["item"].tolist()
        assert [item["rank"] for item in one["items"]] == list(range(1, len(wanted) + 1))
        for item, row in zip(one["items"], wanted.to_dict("records"), strict=True):
            assert item["scores"] == pytest.approx({"click": row["click"], "buy": row["buy"]}, abs=1e-6)
            assert item["score"] == pytest.approx(row["score"], abs=1e-6) and "reasons" not in item
    assert lists(found)[0] == ["c"], "what user 1 has seen is left out"


def test_what_is_asked_changes_the_lists(client, recommender):
    def ask(**given):
        status, found = client.post("/recommend", {"users": [{"user_id": 2}], **given})
        assert status == 200, found
        return found["recommendations"][0]

    assert sorted(i["item"] for i in ask(exclude=["a"])["items"]) == ["b", "c"]
    assert [i["item"] for i in ask(candidates=[["b"]])["items"]] == ["b"]
    assert len(client.post("/recommend", {"users": [1], "exclude_seen": False})[1]["recommendations"][0]["items"]) == 3
    weighted = ask(fusion={"buy": 2.0}, diversity=0.0)["items"]
    assert [i["score"] for i in weighted] == pytest.approx([2 * i["scores"]["buy"] for i in weighted], rel=1e-5)
    explained = ask(reasons=True)["items"][0]["reasons"]
    assert explained["task"] in ("click", "buy") and set(explained["task_effects"]) == {"click", "buy"}
    # Events of this minute count at once.
    scores = [ask(users=[{"user_id": 2, "recent": recent}])["items"] for recent in ([], ["a", "c"])]
    assert {i["item"]: i["score"] for i in scores[0]} != {i["item"]: i["score"] for i in scores[1]}


def test_rows_can_be_scored_as_well(client, recommender):
    rows = [{"user_id": 1, "recent": ["a"], "item_id": "b", "genre": "y"}]
    status, found = client.post("/v1/models/shop:predict", {"instances": rows})
    expected = recommender.model.predict(pd.DataFrame(rows), verbose=0)
    assert status == 200 and found["predictions"][0]["buy"] == pytest.approx(expected["buy"][0].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "`users` must be a list of 1 to 100 users. Received: null"),
        ({"users": []}, "`users` must be a list of 1 to 100 users"),
        ({"users": [1] * 101}, "`users` must be a list of 1 to 100 users"),
        ({"users": [1], "rerank": []}, r"must not hold other keys .*'rerank'"),
        ({"users": [None]}, r"`users\[0\]` must be an id"),
        ({"users": [1.5]}, r"`users\[0\]` must be an id"),
        ({"users": [2**70]}, r"`users\[0\]` must be an id"),
        ({"users": [{}]}, "user"),
        ({"users": [77]}, "77"),
        ({"users": [{"user_id": 1, "age": 3}]}, r"`users\[0\]` must not hold other keys .*'age'"),
        ({"users": [{"user_id": "x"}]}, r"`users\[0\]`, column 'user_id' must hold a whole number"),
        ({"users": [{"user_id": 1, "recent": "a"}]}, r"column 'recent' must hold a list"),
        ({"users": [{"user_id": 1, "recent": [["a"]]}]}, r"column 'recent' must hold a string"),
        ({"users": [{"user_id": 1, "recent": {"b64": ""}}]}, "must not be an object"),
        ({"users": [1], "k": 0}, "`k` must be"),
        ({"users": [1], "k": 1001}, "`k` must be a whole number"),
        ({"users": [1], "k": True}, "`k` must be a whole number"),
        ({"users": [1], "seed": -1}, "`seed` must be"),
        ({"users": [1], "reasons": 1}, "`reasons` must be true or false"),
        ({"users": [1], "diversity": 2}, "`diversity` must be"),
        ({"users": [1], "fusion": "click"}, "`fusion` must be an object of weights"),
        ({"users": [1], "fusion": {"kind": "formula"}}, "`fusion` must not hold other keys"),
        ({"users": [1], "fusion": {"click": None}}, "fusion, task 'click'"),
        ({"users": [1], "candidates": ["zz"]}, "zz"),
        ({"users": [1], "candidates": "abc"}, "`candidates` must be a list"),
        ({"users": [1], "candidates": [1, "a"]}, "`candidates` must hold ids of one type"),
        ({"users": [1, 2], "exclude": [["a"]]}, "`exclude` must be a list of ids"),
    ],
)
def test_what_is_wrong_is_named(client, given, words):
    status, found = client.post("/recommend", given)
    assert status == 400, found
    assert re.search(words, found["error"]), found


def test_what_nobody_waits_for_is_given_up(recommender):
    asked = iter([False, True])
    found = SavedRecommender(recommender).recommend({"users": [1, 2, 3], "common": {}}, lambda: next(asked))
    assert [one["user"] for one in found["recommendations"]] == [1]


def test_it_is_warmed_up_with_a_user(client, recommender, tmp_path, monkeypatch):
    recommender.save(tmp_path / "1")
    asked = []
    monkeypatch.setattr(Recommender, "recommend", lambda self, user, k: asked.append((user["user_id"], k)))
    load_servable(tmp_path / "1")
    assert asked == [(1, 1)]
