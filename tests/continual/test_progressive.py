"""Each day is predicted before it is trained on."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom, evaluate
from mtl_zoo.continual import L2ToPrevious, ReplayBuffer, draw_days, progressive

pytestmark = pytest.mark.tensorflow
OPTIONS = {"extend": {}, "rows": "unknown", "batch_size": 20, "ratio": 0.5}


def day(number, count=40):
    rng = np.random.default_rng(number)
    items = rng.integers(number, number + 6, count)
    return pd.DataFrame({"item": items, "click": ((items % 3 + rng.normal(size=count)) > 1).astype(int)})


DAYS = {f"d{i}": day(i) for i in range(3)}


def start():
    keras.utils.set_random_seed(0)
    transform = FeatureTransform(Categorical("item", dim=2, unknown_rate=0.3), BinaryTask("click")).fit(DAYS["d0"])
    model = SharedBottom(transform, bottom_units=(4,), tower_units=())
    model.compile("adam", run_eagerly=True, metrics=None)
    return model


@pytest.fixture(scope="module")
def whole():
    return progressive(start(), DAYS, replay=ReplayBuffer(30), anchor=L2ToPrevious(0.1), **OPTIONS)


@pytest.mark.extended
def test_a_day_is_measured_by_the_model_of_the_days_before(whole):
    model = start()
    buffer = ReplayBuffer(30)
    for number, (name, table) in enumerate(DAYS.items()):
        expected = evaluate(model, table)
        found = whole.table[whole.table["day"] == name]
        np.testing.assert_array_equal(found["value"], expected["value"])
        assert found["rows"].tolist() == [40] * len(found)
        keras.utils.set_random_seed(1_000_003 * number)
        model = model.extended(model.transform.extend(table), "unknown")
        model.fit(buffer.mixed(table, 0.5), batch_size=20, verbose=0, anchor=L2ToPrevious(0.1))
        buffer.add(table)
    np.testing.assert_array_equal(
        whole.model.predict(day(9), verbose=0)["click"], model.predict(day(9), verbose=0)["click"]
    )
    assert whole.growth[whole.growth["name"] == "item"]["new"].tolist()[0] == 0
    assert whole.model.transform.values_of("item")[
        : len(start().transform.values_of("item"))
    ] == start().transform.values_of("item")


def test_a_run_that_was_cut_goes_on_to_the_same_end(whole, tmp_path):
    cut = dict(list(DAYS.items())[:2])
    arguments = {"anchor": L2ToPrevious(0.1), "folder": tmp_path, **OPTIONS}
    progressive(start(), cut, replay=ReplayBuffer(30), **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["day-000002"]
    (tmp_path / "day-000003.0123abcd.part").mkdir()  # of a process that was killed while it wrote
    again = progressive(start(), DAYS, replay=ReplayBuffer(30), **arguments)
    assert [path.name for path in tmp_path.glob("day-000003")] == ["day-000003"]
    timed = ["predict_seconds", "train_seconds"]
    pd.testing.assert_frame_equal(again.table.drop(columns=timed), whole.table.drop(columns=timed))
    pd.testing.assert_frame_equal(again.growth, whole.growth)
    for a, b in zip(again.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    with pytest.raises(ValueError, match="`folder` must hold days of the same tables"):
        progressive(start(), {"d0": day(8), **cut}, replay=ReplayBuffer(30), **arguments)
    with pytest.raises(ValueError, match="`folder` must hold days of a run with these arguments"):
        progressive(start(), DAYS, replay=ReplayBuffer(30), **{**arguments, "epochs": 2})
    state = tmp_path / "day-000003" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 9}))
    with pytest.raises(ValueError, match="format 9, written by a newer version"):
        progressive(start(), DAYS, replay=ReplayBuffer(30), **arguments)


def test_days_that_are_dates_are_named_alike_when_a_run_goes_on(tmp_path):
    dates = dict(zip(pd.date_range("2024-05-01", periods=3), DAYS.values(), strict=True))
    arguments = {"train": False, "folder": tmp_path}
    first = progressive(start(), dict(list(dates.items())[:2]), **arguments)
    both = progressive(start(), dates, **arguments)
    assert both.scores("auc").index.tolist() == [str(date) for date in dates]
    pd.testing.assert_frame_equal(both.scores("auc").iloc[:2], first.scores("auc"))


def test_never_training_leaves_the_model(tmp_path):
    model = start()
    progress = progressive(model, list(DAYS.values()), train=False)
    assert progress.model is model and progress.growth.empty
    assert progress.scores("auc").shape == (3, 1) and progress.scores("auc").index.tolist() == ["1", "2", "3"]
    assert draw_days({"never": progress.scores("auc")}, tmp_path / "days.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="`metric` must be one of"):
        progress.scores("rmse")


def test_what_is_wrong_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`days` must hold at least one table"):
        progressive(start(), [])
    specs = SharedBottom([Categorical("item", size=3)], BinaryTask("click"), bottom_units=(2,))
    with pytest.raises(ValueError, match="Received: one without a transform"):
        progressive(specs, DAYS)
    with pytest.raises(ValueError, match="`scores` must hold a table"):
        draw_days({}, tmp_path / "none.png")
