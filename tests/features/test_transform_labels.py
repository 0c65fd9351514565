"""Labels, sample spaces and weights in FeatureTransform, and what of them it refuses."""

import numpy as np
import pandas as pd
import pytest
from feature_tables import CLICK, table

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MulticlassTask, Numeric, RegressionTask


def labels_of(task, values, **columns):
    frame = pd.DataFrame({"x": range(len(values)), task.label_column: values, **columns})
    return FeatureTransform(Numeric("x"), task).encode_labels(frame)[task.name]


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, None],
        [False, True, None],
        pd.array([0, 1, None], dtype="Int8"),
        pd.array([False, True, None], dtype="boolean"),
        pd.Series([0.0, 1.0, None], dtype="double[pyarrow]"),
        pd.Categorical([0, 1, None]),
    ],
    ids=str,
)
def test_binary_labels(values):
    label = labels_of(BinaryTask("y"), values)
    assert label.dtype == np.float32
    np.testing.assert_array_equal(label, [0, 1, np.nan])


def test_multiclass_labels_are_positions():
    names = MulticlassTask("y", classes=("low", "mid", "high"))
    np.testing.assert_array_equal(labels_of(names, ["high", "low", None, ""]), [2, 0, np.nan, np.nan])
    np.testing.assert_array_equal(labels_of(MulticlassTask("y", classes=3), [2.0, 0, np.nan]), [2, 0, np.nan])
    np.testing.assert_array_equal(labels_of(MulticlassTask("y", classes=(0.5, 1, 1.5)), [1.5, 1.0]), [2, 1])


def test_regression_labels():
    np.testing.assert_array_equal(labels_of(RegressionTask("y", label="stars"), [2.5, np.nan]), [2.5, np.nan])


def test_sample_spaces_travel_with_the_labels():
    tasks = [BinaryTask("buy", sample_space="seen"), BinaryTask("tap", label="click"), BinaryTask("like")]
    frame = pd.DataFrame({"x": [1.0, 2.0], "buy": [0, 1], "seen": [1, 0], "click": [1, 0], "like": [1, 0]})
    labels = FeatureTransform(Numeric("x"), tasks).encode_labels(frame)
    assert list(labels) == ["buy", "tap", "like", "seen"]
    np.testing.assert_array_equal(labels["buy"], [0, 1])
    np.testing.assert_array_equal(labels["seen"], [1, 0])
    other = [BinaryTask("buy", sample_space="click"), BinaryTask("tap", label="click")]
    space = FeatureTransform(Numeric("x"), other).encode_labels(frame.assign(click=[1, np.nan]))["click"]
    np.testing.assert_array_equal(space, [1, np.nan])


def test_weights():
    frame = table(x=[1.0, 2.0]).assign(w=[1, 3], v=[0.5, 0])
    assert FeatureTransform(Numeric("x"), CLICK).encode_weights(frame) is None
    assert FeatureTransform(Numeric("x"), CLICK, sample_weight="w").encode_weights(frame).tolist() == [1, 3]
    tasks = [BinaryTask("click", sample_weight="v"), RegressionTask("z")]
    weights = FeatureTransform(Numeric("x"), tasks, sample_weight="w").encode_weights(frame.assign(z=1.0))
    assert {name: w.tolist() for name, w in weights.items()} == {"click": [0.5, 0], "z": [1, 3]}
    weights = FeatureTransform(Numeric("x"), tasks).encode_weights(frame.assign(z=1.0))
    assert weights["z"].tolist() == [1, 1]


# What is refused


BAD_LABELS = [
    (
        BinaryTask("y"),
        ["0", "1"],
        r"`y` must be 0 or 1.*2 of 2 rows with \['0', '1'\]. These are strings; convert them",
    ),
    (BinaryTask("y"), ["yes", "no"], r"`y` must be 0 or 1 .*\['yes', 'no'\]. Map it to 0 and 1"),
    (
        BinaryTask("y"),
        [0, 2, -1],
        r"`y` must be 0 or 1 \(or missing\) for task 'y'. Received: 2 of 3 rows with \[2.0, -1.0\]",
    ),
    (BinaryTask("y"), [0, np.inf], r"1 of 2 rows with \[inf\]"),
    (BinaryTask("y"), [[0], [1]], r"`y` must hold numbers. Received: lists"),
    (BinaryTask("y"), [np.nan, np.nan], r"`y` must hold a label of task 'y'. Received: 2 rows, all missing"),
    (
        MulticlassTask("y", classes=("a", "b")),
        ["", ""],
        r"`y` must hold a label of task 'y'. Received: 2 rows, all missing",
    ),
    (
        MulticlassTask("y", classes=("a", "b")),
        ["a", "c"],
        r"classes of task 'y'. Received: 1 of 2 rows with \['c'\]. Expe",
    ),
    (MulticlassTask("y", classes=2), [0, 2], r"Received: 1 of 2 rows with \[2\]. Expected: \[0, 1\], 2 classes"),
    (MulticlassTask("y", classes=2), ["0", "1"], r"which are whole numbers. Received: strings, \['0', '1'\]"),
    (MulticlassTask("y", classes=("a", "")), ["a"], r"`classes` must not hold missing values"),
    (
        RegressionTask("y"),
        [1.0, -np.inf],
        r"`y` must hold finite labels for task 'y'. Received: 1 of 2 rows with \[-inf\]",
    ),
    (RegressionTask("y"), ["a"], r"`y` must hold numbers. Received: strings"),
    (RegressionTask("y"), pd.to_datetime(["2024-01-31"]), r"`y` must not hold dates or times"),
]


@pytest.mark.parametrize(("task", "values", "message"), BAD_LABELS, ids=[m[:60] for _, _, m in BAD_LABELS])
def test_bad_labels(task, values, message):
    frame = pd.DataFrame({"x": np.arange(len(values)), "y": values})
    transform = FeatureTransform(Numeric("x"), task)
    for read in (transform.encode_labels, transform.fit):
        with pytest.raises(ValueError, match=message):
            read(frame)
    assert not transform.is_fitted


def test_sample_spaces_are_checked():
    transform = FeatureTransform(Numeric("x"), BinaryTask("y", sample_space="seen"))
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, np.nan]})
    with pytest.raises(ValueError, match=r"`table` lacks 1 columns. Received without: \['seen'\]"):
        transform.fit(frame)
    with pytest.raises(ValueError, match=r"`seen` must be 1 in some rows.*task 'y'. Received: 0 of 2 rows"):
        transform.fit(frame.assign(seen=0))
    with pytest.raises(ValueError, match=r"`seen` must be 0 or 1, since it is a sample space. Received: 1 of 2 rows"):
        transform.fit(frame.assign(seen=[1, np.nan]))
    with pytest.raises(
        ValueError, match=r"`y` must hold a label where 'seen' is 1.*Received: 1 such rows, all missing"
    ):
        transform.fit(frame.assign(seen=[0, 1]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -1.0], r"`w` must hold finite weights >= 0. Received: 1 of 2 rows with \[-1.0\]"),
        ([1.0, np.nan], r"1 of 2 rows with \[nan\]"),
        ([0.0, 0.0], r"`w` must hold a weight above 0. Received: 2 rows, all 0"),
    ],
)
def test_bad_weights(values, message):
    with pytest.raises(ValueError, match=message):
        FeatureTransform(Numeric("x"), CLICK, sample_weight="w").fit(table(x=[1.0, 2.0]).assign(w=values))


def test_label_columns_are_no_features():
    conversion = BinaryTask("conversion", label="bought", sample_space="click", sample_weight="w")
    for column in ("bought", "click"):
        with pytest.raises(ValueError, match=rf"`features` must not read '{column}', which is a label or sample space"):
            FeatureTransform(Categorical("x", column=column), conversion)
    for column in ("w", "v"):
        with pytest.raises(ValueError, match=rf"`features` must not read '{column}', which is a sample weight"):
            FeatureTransform(Numeric(column), conversion, sample_weight="v")
    with pytest.raises(ValueError, match=r"`sample_weight` must name a column. Received: sample_weight=3"):
        FeatureTransform(Numeric("x"), CLICK, sample_weight=3)
    with pytest.raises(ValueError, match="`tasks` must be given to read labels"):
        FeatureTransform(Numeric("x")).encode_labels({"x": [1]})
