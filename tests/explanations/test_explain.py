"""Parts of features: a linear model whose parts are known, features without influence, and what is told of the gap."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from mtl_zoo import (
    MLP,
    BinaryTask,
    Categorical,
    Embedding,
    Encoded,
    FeatureFusion,
    FeatureTransform,
    MulticlassTask,
    Numeric,
    RegressionTask,
    RetrievalTask,
    Sequence,
    create_model,
    explain,
)
from mtl_zoo.datasets import Split
from mtl_zoo.explanations import permutation_importance
from mtl_zoo.explanations._paths import Line, integrate

CLICK = BinaryTask("click")
FEATURES = (
    Categorical("item", size=9, dim=3),
    Sequence("history", size=9, dim=3, key="item", length=4),
    Numeric("price"),
    Encoded("picture", keras.layers.Dense(2, "tanh"), shape=(3,)),
)


def rows(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "item": rng.integers(0, 11, count).astype("int32"),
        "history": rng.integers(0, 11, (count, 4)).astype("int32"),
        "price": rng.normal(size=count).astype("float32"),
        "picture": rng.normal(size=(count, 3)).astype("float32"),
    }


def small(tasks=(CLICK,), features=FEATURES, **arguments):
    """A shared bottom whose tables are far enough from 0 to matter."""
    arguments = {"bottom_units": (8,), "tower_units": (4,), **arguments}
    embedding = Embedding(initializer="he_normal")
    return create_model("shared_bottom", features, tasks, **{"embedding": embedding, **arguments})


def assert_complete(found):
    assert found.rows["complete"].all()
    np.testing.assert_allclose(found.table.sum(axis=1) + found.rows["gap"], found.rows["change"], atol=1e-6)


@pytest.mark.parametrize("baseline", ["missing", "mean"])
def test_a_linear_model_has_the_parts_of_its_weights(baseline):
    model = small(bottom_units=MLP((5,), activation="linear"), tower_units=())
    x = rows()
    lookup = model.get_layer("embedding")
    bottom, head = model.get_layer("bottom").dense[0].kernel, model.get_layer("click_head").kernel
    weights = (ops.convert_to_numpy(bottom) @ ops.convert_to_numpy(head))[:, 0]
    found = explain(model, x, baseline=baseline)
    vectors = {n: ops.convert_to_numpy(v) for n, v in lookup.vectors_of(x).items()}
    blank = {n: np.zeros_like(a[:1]) for n, a in x.items()}
    nothing = {n: ops.convert_to_numpy(v) for n, v in lookup.vectors_of(blank).items()}
    for name, (start, end) in lookup.bounds().items():
        before = vectors[name].mean(axis=0) if baseline == "mean" else nothing[name]
        np.testing.assert_allclose(found.table[name], (vectors[name] - before) @ weights[start:end], atol=1e-5)
    assert_complete(found)
    assert (found.rows["gradients"] == 8).all(), "what is linear needs no piece split"


def test_scores_and_baselines_are_those_of_predict():
    model, x = small(), rows()
    found = explain(model, x)
    blank = {n: np.zeros_like(a) for n, a in x.items()}
    for column, inputs in (("score", x), ("baseline", blank)):
        np.testing.assert_allclose(found.rows[column], model.predict(inputs, verbose=0)["click"][:, 0], atol=1e-6)
    logit = {c: np.log(found.rows[c] / (1 - found.rows[c])) for c in ("score", "baseline")}
    np.testing.assert_allclose(found.rows["change"], logit["score"] - logit["baseline"], atol=1e-4)
    assert_complete(found)


def test_a_feature_that_the_model_ignores_has_no_part():
    model = small()
    kernel = model.get_layer("bottom").dense[0].kernel
    start, end = model.get_layer("embedding").bounds()["history"]
    values = ops.convert_to_numpy(kernel).copy()
    values[start:end] = 0
    kernel.assign(values)
    found = explain(model, rows())
    assert (found.table["history"] == 0).all() and (found.table["item"] != 0).any()
    assert found.summary()["feature"].iloc[-1] == "history"


def test_integrals_are_those_of_many_small_steps():
    """Of a network with bends; the parts of each array, not their sum alone."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 16)).astype("float32"), rng.normal(size=(2, 16)).astype("float32")]
    start = [np.zeros((1, 3), "float32"), np.ones((1, 2), "float32")]
    end = [rng.normal(size=(6, n)).astype("float32") for n in (3, 2)]
    bias, out = rng.normal(size=16), rng.normal(size=16)

    def function(points, others, units):
        hidden = sum(ops.matmul(p, k) for p, k in zip(points, kernels, strict=True)) + bias.astype("float32")
        return ops.matmul(ops.relu(hidden), out.astype("float32"))

    line = Line(start, end, {}, np.zeros(6, "int32"))
    found = integrate(function, line, most=2000, tolerance=1e-4, scale=np.ones(6), size=50)
    at = (np.arange(4000) + 0.5) / 4000
    ways = [e - s for s, e in zip(start, end, strict=True)]
    hidden = bias + sum(
        (s + at[:, None, None] * w) @ k for s, w, k in zip(start, ways, kernels, strict=True)
    )  # (steps, rows, units)
    slopes = ((hidden > 0) * out).mean(axis=0)
    expected = np.stack([((slopes @ k.T) * w).sum(axis=1) for k, w in zip(kernels, ways, strict=True)], axis=1)
    np.testing.assert_allclose(found.parts, expected, atol=2e-3)
    np.testing.assert_allclose(found.parts.sum(axis=1), found.change, atol=2e-4)
    assert found.gradients.max() < 400


@pytest.mark.extended
def test_classes_numbers_and_pairs():
    tasks = (
        MulticlassTask("genre", classes=("war", "crime", "love")),
        RegressionTask("rating", scale=(3.0, 2.0)),
        RetrievalTask("watch", tower_units=(4,)),
    )
    features = [
        Categorical("user", size=9, dim=3, side="user"), Categorical("item", size=9, dim=3, side="item"),
    ]  # fmt: skip
    model = small(tasks, features)
    rng = np.random.default_rng(0)
    x = {name: rng.integers(2, 11, 6).astype("int32") for name in ("user", "item")}
    scores = model.predict(x, verbose=0)
    genre = explain(model, x, "genre")
    assert_complete(genre)
    np.testing.assert_array_equal(genre.unit, scores["genre"].argmax(axis=1))
    crime = explain(model, x, "genre", label="crime")
    p, q = crime.rows["score"], crime.rows["baseline"]
    np.testing.assert_allclose(p, scores["genre"][:, 1], atol=1e-6)
    np.testing.assert_allclose(crime.rows["change"], np.log(p / (1 - p)) - np.log(q / (1 - q)), atol=1e-4)
    for task in ("rating", "watch"):
        found = explain(model, x, task)
        assert_complete(found)
        np.testing.assert_allclose(found.rows["score"], scores[task][:, 0], atol=1e-5)
        np.testing.assert_allclose(found.rows["change"], found.rows["score"] - found.rows["baseline"], atol=1e-5)
    score = explain(model, x, "genre", on="score", label="war").rows
    np.testing.assert_allclose(score["change"], score["score"] - score["baseline"], atol=1e-6)


def test_fused_features_have_parts_of_their_own():
    fusion = FeatureFusion("both", ("item", "picture"), units=3)
    model = small(embedding=Embedding(initializer="he_normal", fusions=(fusion,)))
    found = explain(model, rows())
    assert_complete(found)
    assert list(found.table) == [f.name for f in FEATURES] and (found.table[["item", "picture"]] != 0).any().all()


def test_reference_rows_are_the_baseline():
    model, x = small(), rows()
    one = {name: array[3:4] for name, array in x.items()}
    found = explain(model, x, baseline=one)
    np.testing.assert_allclose(found.rows["baseline"], found.rows["score"].iloc[3], atol=1e-6)
    np.testing.assert_allclose(found.table.iloc[3], 0, atol=1e-6)
    whole = explain(model, x, baseline=Split(x, {}))
    pd.testing.assert_frame_equal(whole.table, explain(model, x, baseline="mean").table)


def test_a_domain_is_read_as_it_is():
    """Which row of STAR's factors counts has no vector: what it changes is the domain's part."""
    features = [Categorical("item", size=9, dim=3), Categorical("domain", size=3, dim=2)]
    model = create_model("star", features, [CLICK], bottom_units=(4,), auxiliary_units=(3,), tower_units=())
    kernel = model.get_layer("star").dense[0].domain_kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    x = {"item": np.array([2, 3, 4], "int32"), "domain": np.array([2, 3, 4], "int32")}
    found = explain(model, x)
    assert_complete(found)
    np.testing.assert_allclose(found.rows["score"], model.predict(x, verbose=0)["click"][:, 0], atol=1e-6)


def table():
    return pd.DataFrame(
        {
            "city": ["Rome", "Oslo", "Bonn", "Rome"] * 5, "price": np.arange(20.0), "click": [0, 1, 0, 1] * 5,
        },
        index=np.arange(100, 120),
    )  # fmt: skip


@pytest.mark.tensorflow
def test_features_that_only_training_knows_have_no_part():
    position = Categorical("position", size=3, dim=2, bias=True)
    model = small([BinaryTask("click", bias="add")], (FEATURES[0], FEATURES[2], position))
    served = {name: rows()[name] for name in ("item", "price")}
    found = explain(model, served)
    assert_complete(found)
    assert (found.table["position"] == 0).all() and (found.table["price"] != 0).any()
    np.testing.assert_allclose(found.rows["score"], model.predict(served, verbose=0)["click"][:, 0], rtol=1e-5)
    with_positions = {**served, "position": np.full(12, 3, "int32")}
    pd.testing.assert_frame_equal(explain(model, with_positions).table, found.table)
    labels = {"click": (served["price"] > 0).astype("float32")}
    lost = permutation_importance(model, Split(served, labels), resamples=0).table.set_index("feature")
    assert abs(lost["importance"]["position"]) < 1e-12 and list(lost.index).count("position") == 1


def test_rows_of_a_table_and_the_reason_of_one(tmp_path):
    transform = FeatureTransform([Categorical("town", column="city"), Numeric("price")], [CLICK]).fit(table())
    found = explain(small(features=transform), table().iloc[:3])
    assert list(found.table.index) == [100, 101, 102] == list(found.rows.index)
    assert list(found.values["town"]) == ["Rome", "Oslo", "Bonn"]
    reason = found.reason(1)
    score, baseline = found.rows[["score", "baseline"]].iloc[1]
    assert reason.startswith(f"click {score:.3g}, baseline {baseline:.3g}: ") and "town='Oslo'" in reason
    sign = "+" if found.table["town"].iloc[1] > 0 else "-"
    assert f"{sign} town=" in reason
    assert found.reason(1, features=1).count("=") == 1
    for row in (None, 2):
        assert found.plot(tmp_path / f"{row}.svg", row=row).stat().st_size > 1000
    assert "town" in str(found)
    # Values that look like formulas are shown as they are.
    explain(small(features=transform), table().iloc[:1].assign(city="$a_{$")).plot(tmp_path / "f.svg", row=0)


@pytest.mark.tensorflow
def test_calibrated_scores_are_explained_as_they_are_served():
    from mtl_zoo import calibrate

    model, x = small(), rows(40)
    y = {"click": (np.arange(40) % 4 == 0).astype("float32")}
    calibrate(model, Split(x, y))
    found = explain(model, x)
    assert_complete(found)
    np.testing.assert_allclose(found.rows["score"], model.predict(x, verbose=0)["click"][:, 0], atol=1e-6)


@pytest.mark.tensorflow
def test_a_gap_is_told():
    model = small(bottom_units=(64, 64))
    with pytest.warns(UserWarning, match=r"lack more than 1% of the change"):
        found = explain(model, rows(), steps=16)
    gaps = np.abs(found.rows["gap"]) / np.abs(found.rows["change"])
    np.testing.assert_allclose(found.rows["relative_gap"], gaps)
    assert not found.rows["complete"].all() and (found.rows["gradients"] <= 16).all()
    assert "incomplete" in found.reason(int(np.argmin(found.rows["complete"])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "like"}, "`task`"),
        ({"method": "guess"}, "`method`"),
        ({"baseline": "zeros"}, "`baseline`"),
        ({"on": "odds"}, "`on`"),
        ({"label": "war"}, "`label` must be a class"),
        ({"steps": 3}, "`steps`"),
        ({"rows": {"item": np.array([2])}}, "history"),
        ({"rows": table()}, "FeatureTransform"),
        ({"rows": 3}, "`rows` must be a table"),
    ],
)
def test_what_cannot_be_explained_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        explain(small(), **{"rows": rows(), **arguments})
