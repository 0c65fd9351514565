"""A recommender as a function, judged on a split."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo.datasets import Split
from mtl_zoo.recommend import evaluate_ranking

TEST = pd.DataFrame(
    {
        "user_id": [1, 1, 1, 2, 2, 3],
        "item_id": [10, 11, 12, 10, 13, 12],
        "click": [1.0, 0.0, 1.0, 1.0, np.nan, 0.0],
        "rating": [5.0, 2.0, 3.0, 1.0, 4.0, 2.0],
    }
)
TRAIN = pd.DataFrame({"user_id": [1, 2, 2, 4], "item_id": [10, 12, 11, 10]})


def popular(users):
    return np.tile([10, 11, 12, 13], (len(users), 1))


def test_tasks_thresholds_and_lists():
    result = evaluate_ranking(popular, TEST, k=(2, 4), tasks={"click": 0, "rating": 3.5})
    assert result.value("recall@2", "click") == pytest.approx((1 / 2 + 1) / 2)
    assert result.value("recall@4", "rating") == 1 and result.value("mrr@4", "rating") == pytest.approx((1 + 1 / 4) / 2)
    assert result.by_user.query("task == 'click'")["user"].tolist() == [1, 2]
    assert set(result.table.query("task == 'click'")["without"]) == {1}
    lists = result.table.query("task == '' and k == 2").set_index("metric")["value"]
    assert lists.to_dict() == {"coverage": 0.5, "gini": 0.5, "personalisation": 0.0}
    with pytest.raises(ValueError, match="`task` must be given where there are several"):
        result.value("recall@4")


def test_seen_items_and_novelty():
    result = evaluate_ranking(popular, TEST, k=2, tasks=["click"], train=TRAIN)
    # User 1 saw 10: the list becomes 11, 12, and 12 is what is left to find. User 2 is shown 10 and 13.
    assert result.by_user["recall@2"].tolist() == [1, 1] and result.by_user["mrr@2"].tolist() == [0.5, 1]
    lists = result.table.query("task == ''").set_index("metric")["value"]
    shares = np.array([[1 / 3, 1 / 3], [2 / 3, 0.5 / 3], [2 / 3, 1 / 3]])  # of 11, 12; 10, 13; 10, 11
    assert lists["novelty"] == pytest.approx(-np.log2(shares).mean())
    assert lists["coverage"] == 1


def test_graded_labels_are_gains():
    result = evaluate_ranking(popular, TEST, k=3, tasks=["rating"], graded=True)
    dcg, best = (sum((2**g - 1) / np.log2(j + 2) for j, g in enumerate(gains)) for gains in ([5, 2, 3], [5, 3, 2]))
    assert result.by_user["ndcg@3"][0] == pytest.approx(dcg / best)


def test_a_split_of_the_zoo_is_a_table():
    labels = {"click": np.nan_to_num(TEST["click"].to_numpy()).astype("float32")}
    split = Split({"item_id": TEST["item_id"].to_numpy()}, labels, groups={"user_id": TEST["user_id"].to_numpy()})
    first = evaluate_ranking(popular, split, k=2, tasks=["click"])
    assert first.table.equals(evaluate_ranking(popular, TEST, k=2, tasks=["click"]).table)


def test_strings_as_ids():
    words = TEST.assign(item_id="i" + TEST["item_id"].astype(str))
    train = TRAIN.assign(item_id="i" + TRAIN["item_id"].astype(str))
    lists = lambda users: [[f"i{item}" for item in row] for row in popular(users)]  # noqa: E731
    first = evaluate_ranking(lists, words, k=2, tasks=["click"], train=train)
    second = evaluate_ranking(popular, TEST, k=2, tasks=["click"], train=TRAIN)
    pd.testing.assert_frame_equal(first.table, second.table)


def test_sampled_candidates_are_said_and_warned_of():
    catalogue, asked = np.arange(10, 60), {}

    def first_ones(users, candidates):
        asked.update(zip(users.tolist(), candidates.tolist(), strict=True))
        return np.sort(candidates, axis=1)[:, ::-1][:, :3]

    with pytest.warns(UserWarning, match="need not order recommenders as the exact ones do.*KDD 2020"):
        result = evaluate_ranking(
            first_ones, TEST, k=2, tasks=["click"], train=TRAIN, catalogue=catalogue, candidates=5, seed=3
        )
    assert set(result.table["candidates"]) == {"sampled: 5"}
    for user, candidates in asked.items():
        real = [item for item in candidates if item >= 0]
        seen = set(TRAIN.loc[TRAIN["user_id"] == user, "item_id"])
        relevant = set(TEST.loc[(TEST["user_id"] == user) & (TEST["click"] == 1), "item_id"]) - seen
        assert len(set(real)) == len(real) == 5 + len(relevant) and relevant <= set(real) and not seen & set(real)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="must choose from each user's candidates"):
        evaluate_ranking(lambda users, _: np.tile([57, 58, 59], (3, 1)), TEST, k=2, tasks=["click"],
                         catalogue=catalogue, candidates=2)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recommend": lambda users: [[10, 11]]}, "`recommend` must return one list a user, 3. Received: 1"),
        ({"recommend": lambda users: np.tile([10, 99], (3, 1))}, "`recommend` must hold ids of the catalogue.*99"),
        ({"recommend": lambda users: np.tile([10, 10], (3, 1))}, "`recommended` must name an id once"),
        ({"tasks": ["buy"]}, "`split` must have the column 'buy'"),
        ({"tasks": {"click": 2}}, "`tasks` must each have a relevant item. Received: 'click', which has none above 2"),
        ({"tasks": "click"}, "`tasks` must be a list of columns"),
        ({"train": TRAIN[["user_id"]]}, "`train` must have the column 'item_id'"),
        ({"graded": 3}, "`graded` must be one of the known values"),
    ],
)
def test_errors(arguments, message):
    arguments = {"recommend": popular, "split": TEST, "k": 2, "tasks": ["click"], **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(arguments.pop("recommend"), arguments.pop("split"), **arguments)
