"""Soft labels: the loss of a probability, and a student that learns from rows without a label."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MulticlassTask, Numeric, RegressionTask, SharedBottom
from mtl_zoo.metrics.exact import auc
from mtl_zoo.tasks import Focal
from mtl_zoo.training import soft_labels

LIKE = BinaryTask("like", soft=True)


def table(count=400, labelled=40, seed=0):
    """The label follows from `x`; most rows have none."""
    rng = np.random.default_rng(seed)
    x, item = rng.normal(size=count), rng.integers(0, 40, count)
    like = (rng.random(count) < 1 / (1 + np.exp(-2 * x))).astype(float)
    like[labelled:] = np.nan
    return pd.DataFrame({"x": x, "item": item, "like": like, "click": rng.integers(0, 2, count)})


def teacher(rows):
    """Knows the odds, but is off by a shift and a slope, as a prompt is."""
    return 1 / (1 + np.exp(-(0.5 * 2 * rows["x"].to_numpy() - 3)))


def test_probabilities_are_brought_to_the_rates_of_labels():
    given = table(4000, labelled=2000)
    found = soft_labels(given, LIKE, teacher, calibration_rows=2000)
    pd.testing.assert_frame_equal(found.drop(columns="like"), given.drop(columns="like"))
    np.testing.assert_array_equal(found["like"][:2000], given["like"][:2000])
    true = 1 / (1 + np.exp(-2 * given["x"][2000:]))
    assert np.abs(found["like"][2000:] - true).mean() < 0.03
    raw = soft_labels(given, LIKE, teacher, calibration_rows=0)["like"][2000:]
    np.testing.assert_allclose(raw, teacher(given[2000:]))


def test_the_loss_is_the_cross_entropy_of_two_distributions():
    y, logits = np.array([0.2, 0.9], "float32"), np.array([[0.3], [-1.0]], "float32")
    p = 1 / (1 + np.exp(-logits[:, 0]))
    found = keras.ops.convert_to_numpy(LIKE.loss_of("binary_crossentropy")(y, logits))
    np.testing.assert_allclose(found, -y * np.log(p) - (1 - y) * np.log(1 - p), rtol=1e-5)


@pytest.mark.extended
@pytest.mark.tensorflow
def test_a_student_learns_more_with_a_teacher(tmp_path):
    given = table(labelled=16)
    features = [Numeric("x"), Categorical("item", dim=4)]

    def student(rows):
        keras.utils.set_random_seed(0)
        transform = FeatureTransform(features, [LIKE, BinaryTask("click")]).fit(rows)
        model = SharedBottom(transform, bottom_units=(8,), tower_units=())
        model.compile(keras.optimizers.Adam(0.02))
        model.fit(rows, batch_size=64, epochs=6, verbose=0)
        return model

    test = table(3000, labelled=3000, seed=1)
    taught = student(soft_labels(given, LIKE, teacher, calibration_rows=16))
    scores = [one.predict(test, verbose=0)["like"][:, 0] for one in (student(given), taught)]
    alone, helped = (auc(test["like"], score) for score in scores)
    assert helped > alone + 0.02 and helped > 0.84
    taught.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.tasks[0].soft
    np.testing.assert_allclose(loaded.predict(test, verbose=0)["like"][:, 0], scores[1], atol=1e-6)


def test_regressions_take_what_the_teacher_gives_and_spaces_stay():
    rows = pd.DataFrame({"stars": [4.0, None, None], "watched": [1, 1, 0]})
    task = RegressionTask("stars", sample_space="watched")
    found = soft_labels(rows, task, lambda rows: np.full((len(rows), 1), 3.5))
    assert found["stars"].tolist()[:2] == [4.0, 3.5] and np.isnan(found["stars"][2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": lambda rows: [0.5]}, r"`teacher` must give one value a row. Received: shape \(1,\) for 360"),
        ({"teacher": lambda rows: np.full(len(rows), np.nan)}, "`teacher` must give finite numbers"),
        ({"teacher": lambda rows: np.full(len(rows), 1.5)}, "`teacher` must give probabilities"),
        ({"teacher": lambda rows: 1 - teacher(rows)}, "`teacher` must rank the labelled rows of task 'like' better"),
        ({"table": table(40)}, "`table` must lack a label of task 'like'"),
        ({"table": table(40, labelled=0)}, "`like` must hold a label"),
        ({"table": table().assign(like=[1.0] + [np.nan] * 399)}, r"must hold labels 0 and 1 .* Received: \[1.0\]"),
        ({"table": table().drop(columns="like")}, "`table` lacks 1 columns"),
        ({"task": BinaryTask("like")}, r"`like` must be 0 or 1 \(or missing\)"),
        ({"calibration_rows": -1}, "`calibration_rows` must be"),
    ],
)
def test_what_cannot_teach_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        soft_labels(**{"table": table(), "task": LIKE, "teacher": teacher, **change})


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="`task` must be a task"):
        soft_labels(table(), "like", teacher)
    with pytest.raises(TypeError, match="`teacher` must be a function of rows"):
        soft_labels(table(), LIKE, 0.5)
    with pytest.raises(ValueError, match="`loss` must be 'binary_crossentropy' for soft labels"):
        BinaryTask("like", soft=True, loss=Focal())
    with pytest.raises(ValueError, match="`soft` must be True or False"):
        BinaryTask("like", soft=0.5)
    rows = pd.DataFrame({"kind": ["a", None]})
    with pytest.raises(ValueError, match="`kind` must hold"):
        soft_labels(rows, MulticlassTask("kind", classes=("a", "b")), lambda rows: [0.5] * len(rows))


def test_labels_that_are_booleans_stand_beside_probabilities():
    rows = pd.DataFrame({"like": [True, None, False]})
    found = soft_labels(rows, LIKE, lambda rows: [0.7] * len(rows), calibration_rows=0)
    assert found["like"].tolist() == [1.0, 0.7, 0.0]
