"""`pareto`: dominance by hand, and a real sweep."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import create_model
from mtl_zoo.balancing import MGDA, Static, create_balancing, label_of
from mtl_zoo.benchmark.pareto import front_of, pareto
from mtl_zoo.datasets import load_dataset
from mtl_zoo.evaluation import evaluate
from mtl_zoo.training import WeightedScore


def points(**columns):
    count = len(next(iter(columns.values())))
    kinds = ["static"] * (count - 1) + ["method"]
    return pd.DataFrame({"name": list("abcdefgh"[:count]), "kind": kinds, **columns})


def test_dominance_by_hand():
    table = points(click=[0.70, 0.72, 0.71, 0.72, 0.69, 0.70], rmse=[1.0, 1.2, 1.1, 1.3, 1.1, 1.0])
    found = front_of(table, {"click": "auc", "rmse": "rmse"})
    # a and f are equal: neither dominates the other.
    assert found.table.set_index("name")["dominated_by"].to_dict() == {
        "a": "", "b": "", "c": "", "d": "b", "e": "a, c, f", "f": "",
    }  # fmt: skip
    assert list(found.front["click"]) == [0.70, 0.70, 0.71, 0.72]
    assert "dominated_by" in str(found)


def test_what_is_not_defined_is_on_no_front_and_dominates_nothing():
    found = front_of(points(a=[0.5, np.nan, 0.4], b=[0.5, 0.9, 0.4]), {"a": "auc", "b": "auc"})
    assert list(found.table["on_front"]) == [True, False, False] and found.table["dominated_by"].iloc[2] == "a"


@pytest.fixture(scope="module")
def data():
    return load_dataset("synthetic_regression", correlation=-0.9, size=1000, d=10)


def builder(data):
    return lambda: create_model("shared_bottom", data.features, data.tasks, bottom_units=(3,), tower_units=(2,))


@pytest.mark.extended
def test_a_sweep_and_methods(data, tmp_path):
    optimizer = keras.optimizers.Adam(0.02)
    weights = [{"y1": 1.9, "y2": 0.1}, {"y1": 0.1, "y2": 1.9}]
    found = pareto(
        builder(data), data, ["uncertainty"], weights=weights, seeds=2, epochs=3, batch_size=100, optimizer=optimizer
    )
    table = found.table
    assert list(table["name"]) == ["static(y1=1.9, y2=0.1)", "static(y1=0.1, y2=1.9)", "uncertainty"]
    assert list(table["kind"]) == ["static", "static", "method"] and set(table["seeds"]) == {2}
    assert (table["y1_std"] > 0).all() and (table["train_seconds"] > 0).all()
    # Weight on a task is good for it.
    assert table["y1"][0] < table["y1"][1] and table["y2"][1] < table["y2"][0]
    assert found.table["on_front"].any()
    assert found.plot(tmp_path / "a" / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert int(optimizer.iterations) == 0  # every model had a copy


def test_a_point_is_a_training_with_its_weights(data):
    (row,) = pareto(
        builder(data), data, weights=[{"y1": 1.5, "y2": 0.5}], epochs=1, batch_size=100, optimizer="sgd",
        select=WeightedScore(metrics={"y1": "rmse"}), split="validation",
    ).table.to_dict("records")  # fmt: skip
    keras.utils.set_random_seed(0)
    model = builder(data)()
    model.compile("sgd", balancing=Static({"y1": 1.5, "y2": 0.5}), metrics=None)
    model.fit(data.train.batches(100, shuffle=True, seed=0), shuffle=False, verbose=0)
    expected = evaluate(model, data.validation).set_index(["task", "metric"])["value"]
    assert row["y1"] == pytest.approx(expected["y1", "rmse"], rel=1e-4)
    assert row["y2"] == pytest.approx(expected["y2", "nrmse"], rel=1e-4)


def test_one_task_and_three_have_pictures(tmp_path):
    table = points(a=[0.5, 0.7, 0.6])
    table["a_std"] = np.nan
    assert front_of(table, {"a": "auc"}).plot(tmp_path / "one.png").exists()
    table = points(a=[0.5, 0.7, 0.6], b=[0.5, 0.4, 0.45], c=[1.0, 2.0, 3.0])
    for name in "abc":
        table[f"{name}_std"] = 0.01
    assert front_of(table, {"a": "auc", "b": "auc", "c": "rmse"}).plot(tmp_path / "three.svg").exists()


def test_labels_of_methods():
    assert label_of(MGDA()) == "mgda"
    assert label_of(MGDA(normalization="l2", update_every=3)) == "mgda(normalization=l2, update_every=3)"
    assert label_of(Static()) == "static" and label_of(Static({"a": 0.25})) == "static(a=0.25)"
    assert label_of(create_balancing("stch", preferences={"a": 1.0})) == "stch(preferences={a: 1})"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "`seeds` must be a whole number >= 1"),
        ({"epochs": 0}, "`epochs` must be a whole number >= 1"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"split": "train"}, "`split` must be one of the known values"),
        ({"methods": ["best"]}, "`balancing` must be one of the known values"),
        ({"methods": [None]}, "`weights` and `methods` must hold at least one point, and no None"),
        ({"weights": []}, "`weights` and `methods` must hold at least one point"),
        ({"methods": ["dwa", "dwa"]}, r"`methods` must have different names. Received twice: \['dwa'\]"),
        ({"weights": [{"y1": 1.0}]}, "`weights` must name every loss of the model"),
    ],
)
def test_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        pareto(builder(data), data, **arguments)
    with pytest.raises(TypeError, match="`balancing` must be a name or a Balancing"):
        pareto(builder(data), data, [3])
