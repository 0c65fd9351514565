"""One object from users to lists, against scores by `predict` and plain sorting."""

import numpy as np
import pandas as pd
import pytest
from recommended import ANN, ITEMS, USERS, WEIGHTS, make_model, predicted, spread

from mtl_zoo import BinaryTask, Categorical, EntityTable, FeatureTransform, Numeric, SharedBottom
from mtl_zoo.recommend import (
    MMR,
    Borda,
    CategoryCap,
    EpsilonGreedy,
    ExactIndex,
    Powers,
    ReciprocalRank,
    Recommender,
    evaluate_ranking,
)

pytestmark = pytest.mark.tensorflow


def test_a_list_is_all_items_in_the_order_of_predicted_scores(recommender, model, tables):
    fused, scores = predicted(model, tables, ANN)
    order = np.argsort(-fused, kind="stable")[:10]
    shown = recommender.recommend(ANN)
    assert list(shown.columns) == ["user", "rank", "item", "score", "click", "buy"]
    assert shown["item"].tolist() == tables[1]["item_id"][order].tolist()
    assert shown["rank"].tolist() == list(range(1, 11)) and set(shown["user"]) == {3}
    np.testing.assert_allclose(shown["score"], fused[order], rtol=1e-6)
    np.testing.assert_allclose(shown["buy"], scores["buy"][order], rtol=1e-5)


def test_many_users_have_the_lists_that_each_has_alone(recommender, monkeypatch):
    users = [{"user_id": u, "history": [f"i{u}"], "hour": 3 + u} for u in (5, 1, 9)]
    alone = pd.concat([recommender.recommend(user, 4) for user in users], ignore_index=True)
    pd.testing.assert_frame_equal(recommender.recommend(users, 4), alone, rtol=1e-5)
    pd.testing.assert_frame_equal(recommender.recommend(pd.DataFrame(users), 4), alone, rtol=1e-5)
    monkeypatch.setattr("mtl_zoo.recommend._ranking.PAIRS", 30)  # parts of one user's pairs
    pd.testing.assert_frame_equal(recommender.recommend(users, 4), alone, rtol=1e-5)


def test_recent_events_change_the_list_at_once(recommender, model, tables):
    later = {**ANN, "history": ["i30", "i31", "i32"]}
    now, then = recommender.recommend(later, ITEMS), recommender.recommend(ANN, ITEMS)
    assert now["item"].tolist() != then["item"].tolist()
    fused, _ = predicted(model, tables, later)
    np.testing.assert_allclose(now["score"], np.sort(fused)[::-1], rtol=1e-6)


@pytest.mark.parametrize("fusion", [Powers({"click": 1, "buy": 2}), Borda({"click": 1, "buy": 1})])
def test_what_is_left_out_is_left_out_before_fusion(recommender, model, tables, fusion):
    _, scores = predicted(model, tables, ANN)
    hidden = ["i1", "i2", "i3", "no such item"]
    kept = ~tables[1]["item_id"].isin(hidden).to_numpy()
    fused = fusion({name: values[kept] for name, values in scores.items()})
    order = np.argsort(-fused, kind="stable")
    shown = recommender.recommend(ANN, ITEMS, exclude=hidden, fusion=fusion)
    assert shown["item"].tolist() == tables[1]["item_id"][kept].to_numpy()[order].tolist()
    config = recommender.recommend(ANN, ITEMS, exclude=hidden, fusion=fusion.get_config())
    pd.testing.assert_frame_equal(config, shown)
    few = recommender.recommend(ANN, 10, candidates=["i7", "i9", "i2"], exclude=hidden, fusion=fusion)
    assert set(few["item"]) == {"i7", "i9"}
    none = recommender.recommend([ANN, ANN], 3, candidates=[["i7"], ["i2"]], exclude=[[], ["i2"]])
    assert none["user"].tolist() == [3] and none["item"].tolist() == ["i7"]
    empty = recommender.recommend(ANN, 3, candidates=[])
    assert not len(empty) and list(empty.columns) == list(few.columns)
    assert "reason" in recommender.recommend(ANN, 3, candidates=[], reasons=True).columns


def test_stages_and_diversity(model, tables):
    users, items, _ = tables
    recommender = Recommender(
        model, items, users=users, sides={"hour": "user"}, fusion=WEIGHTS, rerank=[MMR("tags", 0.5)], candidates=25
    )
    plain = recommender.recommend(ANN, 10, rerank=())
    first = Recommender.recommend(recommender, ANN, 25, rerank=())["item"]
    shown = recommender.recommend(ANN, 10)
    assert shown["item"].tolist() != plain["item"].tolist() and set(shown["item"]) <= set(first)
    pd.testing.assert_frame_equal(recommender.recommend(ANN, 10, diversity=0), plain)
    assert recommender.recommend(ANN, 10, diversity=0.5)["item"].tolist() == shown["item"].tolist()
    vectors = pd.DataFrame([[tag in tags for tag in "wxyz"] for tags in items["tags"]], items["item_id"], dtype=float)
    unlike = {}
    for diversity in (0, 1):
        unit = vectors.loc[recommender.recommend(ANN, 5, diversity=diversity)["item"]].to_numpy() / np.sqrt(2)
        unlike[diversity] = 1 - np.mean((unit @ unit.T)[np.triu_indices(5, 1)])
    assert unlike[1] > unlike[0]
    capped = recommender.recommend(ANN, 4, rerank=CategoryCap("genre", most=1))
    assert items.set_index("item_id").loc[capped["item"], "genre"].is_unique
    drawn = [
        recommender.recommend(ANN, 10, rerank=EpsilonGreedy(0.9), seed=seed)["item"].tolist() for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_seen_items_and_ids_of_users(model, tables):
    users, items, rows = tables
    # Everything that is read of a user stands in the table.
    known = users.assign(history=[["i1"]] * USERS, hour=5)
    recommender = Recommender(model, items, users=known, sides={"hour": "user"}, exclude=rows)
    assert isinstance(recommender.fusion, ReciprocalRank)
    shown = recommender.recommend(np.array([3, 7]), ITEMS)
    for user in (3, 7):
        seen = set(rows.loc[rows["user_id"] == user, "item_id"])
        mine = shown.loc[shown["user"] == user, "item"]
        assert set(mine) == set(items["item_id"]) - seen
    assert len(recommender.recommend(pd.Series([3], index=[9]), ITEMS, exclude_seen=False)) == ITEMS
    test = rows.sample(60, random_state=3)
    result = evaluate_ranking(recommender, test, tasks=["click"], k=(3, 5), catalogue=items["item_id"])
    lists = recommender(np.unique(test["user_id"]), k=5)
    assert lists.shape == (len(np.unique(test["user_id"])), 5)
    hits = [
        len(set(mine) & set(test.loc[(test["user_id"] == user) & (test["click"] == 1), "item_id"]))
        for user, mine in zip(np.unique(test["user_id"]), lists, strict=True)
    ]
    relevant = test[test["click"] == 1].groupby("user_id")["item_id"].nunique().reindex(np.unique(test["user_id"]))
    expected = (np.array(hits) / relevant.to_numpy())[relevant.notna()].mean()
    assert result.value("recall@5") == pytest.approx(expected)
    with pytest.warns(UserWarning, match="sampled"):
        sampled = evaluate_ranking(recommender, test, tasks=["click"], k=3, catalogue=items["item_id"], candidates=10)
    assert sampled.value("recall@3") >= 0


def test_reasons_are_what_scores_lose(recommender, model, tables):
    shown = recommender.reasons(ANN, 3)
    _, scores = predicted(model, tables, ANN)
    for row in shown.itertuples():
        effects = {name: WEIGHTS[name] * (getattr(row, name) - scores[name].mean()) for name in WEIGHTS}
        assert row.task_effects == pytest.approx(effects, abs=1e-6)
        assert row.task == max(effects, key=effects.get) and row.task_effect == max(row.task_effects.values())
        assert row.feature_effect == max(row.feature_effects.values())
        assert row.reason.startswith(f"{row.task} ") and row.feature in row.reason
        assert set(row.feature_effects) == {feature.name for feature in model.features}
    # A history that is left out is an empty one; an hour that no one knows is id 0 as well.
    without = recommender.recommend({**ANN, "history": []}, ITEMS).set_index("item")["score"]
    first = shown.iloc[0]
    assert first["feature_effects"]["history"] == pytest.approx(first["score"] - without[first["item"]], abs=1e-6)
    many = recommender.reasons([ANN, {**ANN, "user_id": 5}], 2, fusion=Borda({"click": 1, "buy": 1}))
    assert len(many) == 4 and (many["task_effect"] > 0).all()


@pytest.mark.parametrize("in_table", [False, True])
def test_items_come_and_go_and_change(tables, in_table):
    users, items, rows = tables
    known = items.drop(columns="tags")
    if in_table:
        model = make_model(rows.drop(columns=["genre", "price"]), entities=EntityTable(known, "item_id", side="item"))
        items = items[["item_id", "tags"]]
    else:
        model = make_model(rows)
    recommender = Recommender(
        model, items, users=users, sides={"hour": "user"}, fusion=WEIGHTS, rerank=MMR("tags", 0.6)
    )
    assert {"genre", "price", "tags"} <= set(recommender.items.columns)
    before = recommender.recommend(ANN, ITEMS, rerank=())
    new = pd.DataFrame({"item_id": ["new"], "genre": ["b"], "price": [0.3], "tags": [["x"]]})
    recommender.add_items(new)
    after = recommender.recommend(ANN, ITEMS + 1, rerank=())
    assert set(after["item"]) == {*before["item"], "new"} and len(recommender.recommend(ANN, 3)) == 3
    row = pd.DataFrame({**{k: [v] for k, v in ANN.items()}, "age": users["age"][3], **new.iloc[:1].to_dict("list")})
    expected = model.predict(row.drop(columns="tags"), verbose=0)["click"][0, 0]
    assert after.set_index("item")["click"]["new"] == pytest.approx(expected, rel=1e-5)
    others = after[after["item"] != "new"].reset_index(drop=True).drop(columns="rank")
    pd.testing.assert_frame_equal(others, before.drop(columns="rank"), rtol=1e-5)

    recommender.update_items({"item_id": ["new"], "genre": ["c"], "tags": [["y", "z"]]})
    assert recommender.items["tags"].iloc[-1] == ["y", "z"] and recommender.items["tags"][0] == items["tags"][0]
    row["genre"] = "c"
    expected = model.predict(row.drop(columns="tags"), verbose=0)["click"][0, 0]
    changed = recommender.recommend(ANN, ITEMS + 1, rerank=()).set_index("item")["click"]["new"]
    assert changed == pytest.approx(expected, rel=1e-5)
    recommender.remove_items(["new"])
    pd.testing.assert_frame_equal(recommender.recommend(ANN, ITEMS, rerank=()), before, rtol=1e-5)

    kept = recommender.items
    for change, items_, text in (
        (recommender.add_items, new.assign(item_id="i3"), "`items` must be new"),
        (recommender.add_items, new.drop(columns="price"), "without: \\['price'\\]"),
        (recommender.update_items, new, "`items` must hold ids of the catalogue"),
        (recommender.update_items, {"item_id": ["i3"], "price": ["dear"]}, "price"),
        (recommender.remove_items, ["new"], "`ids` must hold ids of the catalogue"),
        (recommender.remove_items, list(items["item_id"]), "`ids` must leave an item"),
        (recommender.add_items, pd.concat([new, new]), "must hold each id once"),
        (recommender.add_items, new.assign(item_id=None), "must have an id in every row"),
        (recommender.add_items, new.assign(item_id=-1), "must have an id in every row"),
    ):
        with pytest.raises(ValueError, match=text):
            change(items_)
    pd.testing.assert_frame_equal(recommender.items, kept)
    pd.testing.assert_frame_equal(recommender.recommend(ANN, ITEMS, rerank=()), before, rtol=1e-5)


def test_what_cannot_be_is_named(recommender, model, tables):
    users, items, _ = tables
    sides = {"hour": "user"}
    for arguments, text in (
        ({}, "`sides` must say whose .* none for \\['hour'\\]. Write sides={'hour': 'user'}"),
        ({"sides": {"hours": "user"}}, "`sides` must be one of the known values. Received: sides='hours'"),
        ({"sides": sides, "item": "sku"}, "column of ids 'sku'"),
        ({"sides": sides, "fusion": {"like": 1}}, "`scores` must hold those of \\['like'\\]"),
        ({"sides": sides, "fusion": 3}, "`fusion` must be a Fusion"),
        ({"sides": sides, "rerank": ["MMR"]}, "`rerank` must be stages"),
        ({"sides": sides, "candidates": 0}, "`candidates` must be a whole number >= 1"),
        (
            {"sides": sides, "users": users.assign(user_id=1)},
            "`users` must have the column 'user_id' with each id once",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            Recommender(model, items, **arguments)
    with pytest.raises(ValueError, match="without: \\['price'\\]"):
        Recommender(model, items.drop(columns="price"), sides=sides)
    with pytest.raises(ValueError, match="must be made with a fitted FeatureTransform"):
        Recommender(SharedBottom([Categorical("item_id", size=4)], [BinaryTask("click")]), items)
    for user, text in (
        ({"user_id": 3, "history": []}, "without: \\['hour'\\]"),
        ({"user_id": 99, "history": [], "hour": 1}, "`users` must have the columns \\['age'\\] where a user is not"),
        ({**ANN, "age": "old"}, "`age` must hold numbers"),
        (3, "`users` must be a dict"),
        ([], "`users` must hold at least one user"),
    ):
        with pytest.raises(ValueError, match=text):
            recommender.recommend(user)
    for arguments, text in (
        ({"k": 0}, "`k` must be a whole number >= 1"),
        ({"candidates": ["i1", "zz"]}, "`candidates` must hold ids of the catalogue. Received: 1 others, \\['zz'\\]"),
        ({"candidates": ["i1", "i1"]}, "`candidates` must name an id once"),
        ({"exclude": "i1"}, "`exclude` must be a list of ids"),
        ({"diversity": 0.5}, "`diversity` needs a stage"),
        ({"diversity": 2}, "`diversity` must be a finite number"),
        ({"rerank": MMR("nothing")}, "`columns` must hold 'nothing'"),
    ):
        with pytest.raises(ValueError, match=text):
            recommender.recommend(ANN, **arguments)


def test_rows_without_ids_are_nobody(tables):
    """What the user with the id 1 has seen is not hidden from the second of two rows that name no user."""
    _, items, rows = tables
    model = make_cold_model(rows)
    recommender = Recommender(model, items, fusion={"click": 1.0}, exclude=rows[["user_id", "item_id"]])
    lists = recommender(pd.DataFrame({"age": [30.0] * 3}), k=ITEMS)
    assert (lists == lists[0]).all() and None not in lists[1]
    assert len(recommender.recommend({"user_id": 1, "age": 30.0}, ITEMS)) < ITEMS


def make_cold_model(rows):
    features = [Numeric("age", side="user"), Categorical("item_id", side="item", dim=4)]
    fitted = FeatureTransform(features, [BinaryTask("click")]).fit(rows)
    return spread(SharedBottom(fitted, bottom_units=(8,), tower_units=(4,)))


def test_each_dict_is_completed_by_the_table(recommender):
    """A column that one of several dicts has is taken from the table for those that leave it out."""
    ben = {"user_id": 5, "history": ["i1"], "hour": 7}
    alone = [recommender.recommend(user, 4) for user in ({**ANN, "age": 70.0}, ben)]
    together = recommender.recommend([{**ANN, "age": 70.0}, ben], 4)
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), rtol=1e-5)


def test_ids_of_another_kind_are_refused(recommender, model, tables):
    """They would hide nothing."""
    users, items, rows = tables
    with pytest.raises(ValueError, match="`exclude` must hold ids that are strings"):
        recommender.recommend(ANN, 3, exclude=[3, 4])
    seen = rows[["user_id", "item_id"]]
    arguments = {"users": users, "sides": {"hour": "user"}, "fusion": WEIGHTS}
    for wrong, text in (
        (seen.assign(item_id=7), "`exclude` must hold ids that are strings"),
        (seen.assign(user_id="7"), "`users` must hold ids that are strings"),
    ):
        with pytest.raises(ValueError, match=text):
            Recommender(model, items, exclude=wrong, **arguments)
    cold = Recommender(make_cold_model(rows), items, exclude=seen)
    with pytest.raises(ValueError, match="`users` must hold ids that are whole numbers"):
        cold.recommend({"user_id": "1", "age": 30.0}, 3)
    with pytest.raises(ValueError, match="below 2\\^63"):
        ExactIndex().build(np.array([2**63, 1], "uint64"), np.eye(2))


def test_a_list_that_is_missing_is_empty(model, tables):
    """pandas writes NaN for a list that a join did not find, and None in other places."""
    users, items, _ = tables
    lists = [
        Recommender(
            model, items.assign(tags=[empty, *items["tags"][1:]]), users=users, sides={"hour": "user"}, fusion=WEIGHTS
        ).recommend(ANN, 5, rerank=MMR("tags", 0.5))
        for empty in ([], None, float("nan"))
    ]
    for other in lists[1:]:
        pd.testing.assert_frame_equal(lists[0], other)


def test_a_seen_pair_without_a_user_hides_nothing(model, tables):
    users, items, _ = tables
    seen = pd.DataFrame({"user_id": np.array([3, None, 3], object), "item_id": ["i1", "i2", "i5"]})
    arguments = {"users": users, "sides": {"hour": "user"}, "fusion": WEIGHTS, "exclude": seen}
    shown = Recommender(model, items, **arguments).recommend(ANN, ITEMS)
    assert set(items["item_id"]) - set(shown["item"]) == {"i1", "i5"}
