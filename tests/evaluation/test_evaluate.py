import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from mtl_zoo import BinaryTask
from mtl_zoo.datasets import Split
from mtl_zoo.evaluation import evaluate, scoreboard


def value(table, task, metric):
    rows = table[(table["task"] == task) & (table["metric"] == metric)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_funnel_equals_scikit_learn_on_the_rows_of_each_space(stand_in, funnel):
    split, scores, tasks = funnel
    table = evaluate(stand_in(tasks, scores, funnel=True), split)
    click, conversion = split.labels["click"], split.labels["conversion"]
    clicked = click == 1
    flat = {name: score[:, 0] for name, score in scores.items()}

    row = value(table, "click", "auc")
    assert (row.space, row.observed, row.note) == ("impressions", 400, "")
    assert row.value == sk.roc_auc_score(click, flat["click"])
    row = value(table, "conversion", "auc")
    assert (row.space, row.observed) == ("click", clicked.sum())
    assert row.note == "conversion|click: rows where click is 1"
    assert row.value == sk.roc_auc_score(conversion[clicked], flat["conversion"][clicked])
    row = value(table, "click_and_conversion", "auc")
    assert (row.space, row.observed, row.note) == ("impressions", 400, "click_and_conversion on impressions")
    assert row.value == sk.roc_auc_score(click * conversion, flat["click_and_conversion"])
    expected = sk.log_loss(conversion[clicked], flat["conversion"][clicked].astype("float64"))
    assert value(table, "conversion", "logloss").value == pytest.approx(expected, abs=1e-9)


def test_products_give_every_model_an_end_to_end_score(stand_in, funnel):
    split, scores, tasks = funnel
    own = {name: scores[name] for name in ("click", "conversion")}
    found = evaluate(stand_in(tasks, own), split, products=True)
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), evaluate(stand_in(tasks, scores, funnel=True), split), rtol=1e-6
    )
    assert "click_and_conversion" not in set(evaluate(stand_in(tasks, own), split)["task"])
    funnelled = evaluate(stand_in(tasks, scores, funnel=True), split, products=True)
    assert not funnelled.duplicated(["task", "metric"]).any()


def test_products_of_a_chain_count_every_step(stand_in):
    rng = np.random.default_rng(0)
    click, cart, sale = (rng.integers(0, 2, 300).astype("float32") for _ in range(3))
    cart, sale = click * cart, click * cart * sale
    cart[(click == 1) & (rng.random(300) < 0.1)] = np.nan
    split = Split({"x": np.arange(300)}, {"click": click, "cart": cart, "sale": sale})
    tasks = BinaryTask("click"), BinaryTask("cart", sample_space="click"), BinaryTask("sale", sample_space="cart")
    scores = {task.name: rng.random((300, 1)).astype("float32") for task in tasks}
    table = evaluate(stand_in(tasks, scores), split, products=True)
    known = np.isfinite(cart)
    product = np.prod([scores[name].ravel() for name in ("click", "cart", "sale")], axis=0)
    row = value(table, "click_and_sale", "auc")
    assert (row.space, row.observed) == ("impressions", known.sum())
    assert row.value == pytest.approx(sk.roc_auc_score(sale[known], product[known]))
    assert value(table, "click_and_cart", "auc").observed == known.sum()
    del scores["cart"]
    tasks = tasks[0], tasks[2]
    assert set(evaluate(stand_in(tasks, scores), split, products=True)["task"]) == {"click", "sale"}


def test_share_of_the_oracles_lift(stand_in, funnel):
    split, scores, tasks = funnel
    table = evaluate(stand_in(tasks, {**scores, "click": split.truth["click"][:, None]}, funnel=True), split)
    best, share = value(table, "click", "oracle_auc").value, value(table, "click", "lift_share").value
    assert 0.6 < best < 0.9
    assert share == pytest.approx((value(table, "click", "auc").value - 0.5) / (best - 0.5))
    assert share == pytest.approx(1, abs=0.25)  # the truth itself, up to the luck of 400 labels
    assert value(table, "conversion", "oracle_auc").observed == (split.labels["click"] == 1).sum()
    split.truth = {}
    assert "oracle_auc" not in set(evaluate(stand_in(tasks, scores, funnel=True), split)["metric"])


def test_group_adds_gauc_and_says_how_many_groups_count(stand_in, funnel):
    split, scores, tasks = funnel
    model = stand_in(tasks, scores)
    row = value(evaluate(model, split, group="user_id"), "click", "gauc")
    assert 0.5 < row.value < 1 and row.note == "by user_id: 30 of 30 groups have both classes"
    assert "of 30 groups" in value(evaluate(model, split, group="user_id"), "conversion", "gauc").note
    with pytest.raises(ValueError, match=r"`group` must be one of the known values.*Expected: one of 'user_id'"):
        evaluate(model, split, group="user")


def test_weights_weigh_rows(stand_in, funnel):
    split, scores, tasks = funnel
    weight = np.random.default_rng(0).uniform(0, 2, 400).astype("float32")
    for weights in (weight, {"click": weight, "conversion": np.ones(400, "float32")}):
        split.weights = weights
        table = evaluate(stand_in(tasks, scores, funnel=True), split)
        expected = sk.roc_auc_score(split.labels["click"], scores["click"], sample_weight=weight)
        assert value(table, "click", "auc").value == pytest.approx(expected, abs=1e-9)
    product = split.labels["click"] * split.labels["conversion"]
    assert value(table, "click_and_conversion", "auc").value == sk.roc_auc_score(
        product, scores["click_and_conversion"]
    )


def test_mixed_kinds_and_unobserved_labels(stand_in, mixed_tasks):
    rng = np.random.default_rng(0)
    labels = {
        "like": rng.integers(0, 2, 60).astype("float32"),
        "genre": rng.integers(0, 3, 60).astype("float32"),
        "rating": rng.normal(size=60).astype("float32"),
    }
    for label in labels.values():
        label[:20] = np.nan
    scores = {
        "like": rng.random((60, 1)),
        "genre": rng.dirichlet(np.ones(3), 60).astype("float32"),
        "rating": rng.normal(size=(60, 1)),
    }
    table = evaluate(stand_in(mixed_tasks, scores), Split({"x": np.arange(60)}, labels))
    assert set(table["observed"]) == {40}
    assert value(table, "genre", "accuracy").value == np.mean(scores["genre"][20:].argmax(1) == labels["genre"][20:])
    expected = sk.root_mean_squared_error(labels["rating"][20:], scores["rating"][20:, 0])
    assert value(table, "rating", "rmse").value == pytest.approx(expected)
    wide = scoreboard(table)
    assert list(wide.index.get_level_values("task")) == ["like", "genre", "rating"]
    assert wide.loc[("rating", "impressions", 40), "rmse"] == pytest.approx(expected)
    assert np.isnan(wide.loc[("rating", "impressions", 40), "auc"])
    assert list(scoreboard(table, ("logloss", "auc")).columns) == ["logloss", "auc"]


def test_one_class_and_no_rows_are_nan_with_a_note(stand_in, funnel):
    split, scores, tasks = funnel
    split.labels["conversion"] = np.zeros(400, "float32")
    row = value(evaluate(stand_in(tasks, scores), split), "conversion", "auc")
    assert np.isnan(row.value)
    assert row.note == "conversion|click: rows where click is 1; one class only: every label is 0"
    assert value(evaluate(stand_in(tasks, scores), split), "conversion", "logloss").value > 0
    split.labels["click"] = np.zeros(400, "float32")
    table = evaluate(stand_in(tasks, scores), split)
    nothing = table[table["task"] == "conversion"]
    assert (nothing["observed"] == 0).all() and nothing["value"].isna().all()
    assert nothing["note"].str.contains("no observed rows").all()


def test_errors(stand_in, funnel):
    split, scores, tasks = funnel
    scores["click"][3:5] = np.nan
    with pytest.raises(ValueError, match=r"must predict finite scores. Received: 2 NaN or infinite for 'click'"):
        evaluate(stand_in(tasks, scores), split)
    with pytest.raises(ValueError, match="`split` must have at least one row"):
        evaluate(stand_in(tasks, scores), Split({"x": np.zeros(0)}, {}))
    with pytest.raises(ValueError, match="`batch_size` must be a whole number >= 1"):
        evaluate(stand_in(tasks, scores), split, batch_size=0)
    with pytest.raises(ValueError, match="`metrics` must be one of the known values"):
        scoreboard(evaluate(stand_in(tasks[:1], {"click": np.full((400, 1), 0.5)}), split), ("aucs",))


# fault 10
def test_the_note_counts_rows_without_a_group(stand_in, funnel):
    split, scores, tasks = funnel
    users = split.groups["user_id"].astype(object)
    users[:40] = None
    split.groups["user_id"] = users
    row = value(evaluate(stand_in(tasks, scores, funnel=True), split, group="user_id"), "click", "gauc")
    assert "40 rows have no group" in row.note
