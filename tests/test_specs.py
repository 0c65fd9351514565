"""Tasks and feature specs: what they refuse, and what follows from what is given."""

import numpy as np
import pytest

from mtl_zoo import BinaryTask, Categorical, Encoded, MulticlassTask, Numeric, RegressionTask, Sequence
from mtl_zoo.features.spec import as_features, feature_from_config
from mtl_zoo.tasks import Task, as_tasks, label_names, task_from_config

EVERY_TASK = [
    BinaryTask("click", label="is_click", loss_weight=0.5, sample_weight="w"),
    BinaryTask("conversion", sample_space="click_column", loss="binary_focal_crossentropy"),
    MulticlassTask("effect", classes=("none", "some")),
    MulticlassTask("stars", classes=5),
    RegressionTask("rating", loss="huber", metrics=("rmse", "mae")),
]


@pytest.mark.parametrize("task", EVERY_TASK, ids=lambda t: t.name)
def test_task_survives_its_config(task):
    assert task_from_config(task.get_config()) == task


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Task("x"), "Use BinaryTask, MulticlassTask, RegressionTask or RetrievalTask"),
        (lambda: BinaryTask(""), "`name` must be a non-empty string"),
        (lambda: BinaryTask("a/b"), r"`name` may hold letters.*Rename it, for example to 'a_b'"),
        (lambda: BinaryTask("a b"), r"`name` may hold letters.*Rename it, for example to 'a_b'"),
        (lambda: BinaryTask("a", loss="mean_squared_error"), "`loss` must be one of the known values"),
        (lambda: BinaryTask("a", loss_weight=-1), "`loss_weight` must be a finite number and >= 0"),
        (lambda: BinaryTask("a", loss_weight=float("nan")), "`loss_weight` must be a finite number"),
        (lambda: BinaryTask("a", sample_space="a"), "`sample_space` must be another column"),
        (lambda: BinaryTask("a", sample_space=3), "`sample_space` must name a column"),
        (lambda: MulticlassTask("a", classes=1), "`classes` must be a whole number >= 2"),
        (lambda: MulticlassTask("a", classes=("x", "x")), "`classes` must be at least two different labels"),
        (lambda: MulticlassTask("a", classes="xy"), "`classes` must be a number or a list of labels"),
        (lambda: as_tasks([]), "`tasks` must hold at least one task"),
        (lambda: as_tasks(["click"]), "`tasks` must be BinaryTask"),
        (lambda: as_tasks([BinaryTask("a"), BinaryTask("a")]), "`tasks` must have different names"),
        (
            lambda: as_tasks([BinaryTask("click", label="y"), BinaryTask("b", sample_space="click")]),
            "also the name of a task whose label is column 'y'",
        ),
        (lambda: Categorical("a", vocabulary=("x",), size=3), "exclude each other"),
        (lambda: Categorical("a", vocabulary=("x", "x")), "`vocabulary` must hold different values"),
        (lambda: Categorical("a", size=0), "`size` must be a whole number >= 1"),
        (lambda: Categorical("a", max_ids=0), "`max_ids` must be a whole number >= 1"),
        (
            lambda: Categorical("a", max_ids=3, size=3),
            "`max_ids` bounds a vocabulary that is learned, and `size` gives",
        ),
        (lambda: Sequence("a", max_ids=3, hash_buckets=9), "`max_ids` bounds a vocabulary.*Received: max_ids=3"),
        (lambda: Categorical("a", max_ids=3, vocabulary=("x",)), "`max_ids` bounds a vocabulary.*`vocabulary` gives"),
        (lambda: Categorical("a", dim=0), "`dim` must be a whole number >= 1"),
        (lambda: Categorical("a", length=3), "`length` needs multi_hot=True"),
        (lambda: Categorical("a", pretrained=np.ones((3, 16))), "`pretrained` needs one row a value"),
        (
            lambda: Categorical("a", size=3, dim=4, pretrained=np.ones((3, 5))),
            "`dim` must be the width of `pretrained`",
        ),
        (lambda: Categorical("a", size=1, dim=1, pretrained=[[np.nan]]), "`pretrained` must be a finite"),
        (lambda: Sequence("a", pooling="median"), "`pooling` must be one of the known values"),
        (lambda: Numeric("a", normalization="minmax"), "`normalization` must be one of the known values"),
        (lambda: Numeric("a", missing="bucket"), "`missing` must be one of the known values"),
        (lambda: Numeric("a", missing=float("inf")), "`missing` must be a finite number"),
        (lambda: Numeric("a", column=""), "`column` must name a column"),
        # fault 33, 37
        (lambda: Categorical("a", size=3_000_000_000), "`size` must be a whole number <= 2,147,483,645"),
        (lambda: Categorical("a", hash_buckets=2**40), "`hash_buckets` must be a whole number <= 2,147,483,645"),
        (
            lambda: Categorical("a", vocabulary=[[1]]),
            r"`vocabulary` must hold strings or whole numbers. Received: \[\[1",
        ),
        (lambda: Encoded("a", len, shape=None), "`shape` must be a tuple of sizes"),
        (lambda: Categorical("a", side="left"), "`side` must be one of the known values"),
        (lambda: as_features([]), "`features` must hold at least one feature"),
        (lambda: as_features([BinaryTask("a")]), "`features` must be Categorical"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_label_names_are_tasks_then_sample_spaces():
    tasks = [BinaryTask("click"), BinaryTask("conversion", sample_space="click"), BinaryTask("b", sample_space="seen")]
    assert label_names(tasks) == ("click", "conversion", "b", "seen")


def test_defaults_follow_the_kind():
    assert BinaryTask("a").metric_names == ("auc",)
    assert BinaryTask("a", metrics=("auto", "accuracy")).metric_names == ("auc", "accuracy")
    assert RegressionTask("a").loss_name == "mean_squared_error"
    assert MulticlassTask("a", classes=3).units == 3


@pytest.mark.parametrize(
    "feature",
    [
        Categorical("a", size=3, column="A a", key="k"),
        Categorical("a", multi_hot=True, length=4, hash_buckets=10),
        Sequence("a", size=3, pooling="max", length=7),
        Sequence("a", max_ids=3, pooling=None),
        Numeric("a", normalization="quantile", missing="bucket", buckets=4),
    ],
    ids=["size", "multi_hot", "sequence", "unpooled", "numeric"],
)
def test_feature_survives_its_config(feature):
    assert feature_from_config(feature.get_config()) == feature


def test_number_of_ids():
    assert Categorical("a", size=5).num_ids == 7
    assert Categorical("a", hash_buckets=5).num_ids == 7
    assert Categorical("a", vocabulary=("x", "y")).num_ids == 4
    assert Categorical("a").num_ids is None
    assert Numeric("a", normalization="quantile", buckets=4).num_ids == 6
