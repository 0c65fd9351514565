"""What every kind of feature, and every model, must keep when later tables extend a transform."""

import keras
import numpy as np
import pandas as pd
import pytest
from toys import sample_of, small_arguments, tasks_of

import mtl_zoo
from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, SharedBottom
from mtl_zoo.features.requests import UNKNOWN_ID
from mtl_zoo.features.spec import FEATURES

CLICK = BinaryTask("click")
EXAMPLES = [example for kind in FEATURES for example in FEATURES[kind].examples()]
every_example = pytest.mark.parametrize(
    ("feature", "cells"), EXAMPLES, ids=[f"{f.kind}: {f.rule}" for f, _ in EXAMPLES]
)
# A model is trained of one feature of each kind by default, and of all of them with the slow tests.
FIRST = {feature.kind: i for i, (feature, _) in reversed(list(enumerate(EXAMPLES)))}
of_each_kind = pytest.mark.parametrize(
    ("feature", "cells"),
    [pytest.param(f, c, marks=() if FIRST[f.kind] == i else pytest.mark.slow) for i, (f, c) in enumerate(EXAMPLES)],
    ids=[f"{f.kind}: {f.rule}" for f, _ in EXAMPLES],
)
pytestmark = pytest.mark.tensorflow


def table_of(feature, cells):
    return pd.DataFrame({feature.source: pd.Series(cells), "click": np.arange(len(cells)) % 2})


def split(feature, cells):
    """The rows that the transform is fitted on, and later ones with values that those lack."""
    # Of neighbours, an id that comes later is a neighbour from then on.
    first = len(cells) if feature.borrows else 4
    return table_of(feature, cells[:first]), table_of(feature, cells)


@every_example
def test_old_arrays_stay_bit_by_bit_and_the_old_transform_is_untouched(feature, cells, tmp_path):
    first, later = split(feature, cells)
    transform = FeatureTransform(feature, CLICK).fit(first)
    before, unknown = transform.encode(first), transform.encode(later)
    extended = transform.extend(later, numbers="keep", evict_after=3)
    for name, array in extended.encode(first).items():
        known = before[name] != UNKNOWN_ID if array.dtype == "int32" else np.ones(array.shape, bool)
        np.testing.assert_array_equal(array[known], before[name][known])
    for name, array in transform.encode(later).items():
        np.testing.assert_array_equal(array, unknown[name])
    assert extended.features[0].input_specs() == transform.features[0].input_specs()
    extended.require_extension_of(transform)
    (row,) = extended.growth.to_dict("records")
    assert row["name"] == feature.name and (row["new"] == 0 or row["rule"] == "grows")
    extended.save(tmp_path / "transform")
    loaded = FeatureTransform.load(tmp_path / "transform")
    pd.testing.assert_frame_equal(loaded.growth, extended.growth)
    in_graph = loaded.encode_in_graph(loaded.raw_arrays(later))
    for name, array in extended.encode(later).items():
        np.testing.assert_array_equal(loaded.encode(later)[name], array)
        np.testing.assert_allclose(in_graph[name].numpy(), array, atol=1e-6)
    again, same = loaded.extend(later), extended.extend(later)
    assert again.features == same.features and again.growth.equals(same.growth)


@of_each_kind
def test_a_model_that_goes_on_scores_old_rows_alike(feature, cells, tmp_path):
    first, later = split(feature, cells)
    model = SharedBottom(FeatureTransform(feature, CLICK).fit(first), bottom_units=(3,), tower_units=())
    model.compile("adam", run_eagerly=True, metrics=None)
    model.fit(first, batch_size=4, verbose=0)
    transform = model.transform.extend(later)
    made = model.extended(transform)
    x = model.transform.encode(first)
    known = np.ones(len(first), bool)
    for array in x.values():
        if array.dtype == "int32":  # a value that has got an id is not scored as unknown any more
            known &= (array != UNKNOWN_ID).reshape(len(array), -1).all(axis=1)
    scores = model.predict(first, verbose=0)["click"]
    np.testing.assert_array_equal(made.predict(first, verbose=0)["click"][known], scores[known])
    assert float(made.optimizer.iterations.numpy()) == float(model.optimizer.iterations.numpy())
    made.fit(later, batch_size=4, verbose=0)
    np.testing.assert_array_equal(model.predict(first, verbose=0)["click"], scores)
    made.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(later, verbose=0)["click"], made.predict(later, verbose=0)["click"])
    loaded.transform.require_extension_of(model.transform)


def rows(seed, low, high, count=48):
    rng = np.random.default_rng(seed)
    draw = {name: rng.integers(low, high, count) for name in ("user_id", "item", "other")}
    draw["history"] = [rng.integers(low, high, 3).tolist() for _ in range(count)]
    draw["domain"] = np.arange(count) % 3
    draw["age"] = rng.normal(size=count)
    click = rng.integers(0, 2, count)
    labels = {name: click * rng.integers(0, 2, count) for name in ("conversion", "cart")}
    return pd.DataFrame({**draw, "click": click, "like": rng.integers(0, 2, count), **labels})


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), ("shared_bottom",)))
def test_every_model_goes_on(name):
    features = [
        Categorical("user_id", dim=4),
        Categorical("item", dim=4),
        Categorical("other", dim=3),
        Sequence("history", dim=4, key="item", length=3),
        Categorical("domain", dim=2),
        Numeric("age"),
    ]
    monday, tuesday = rows(0, 0, 9), rows(1, 4, 15)
    transform = FeatureTransform(features, tasks_of(name)).fit(monday)
    model = mtl_zoo.create_model(name, transform, **small_arguments(name))
    model.compile("adam", run_eagerly=True, metrics=None)
    model.fit(monday, batch_size=24, verbose=0)
    made = model.extended(model.transform.extend(tuesday, fixed=["domain"]), rows="unknown")
    assert made.features[0].num_ids > model.features[0].num_ids
    old, new = model.predict(monday, verbose=0), made.predict(monday, verbose=0)
    for output, scores in old.items():
        np.testing.assert_array_equal(new[output], scores)
    # Rows of new values are those of the unknown value, so nothing changes until they are trained.
    np.testing.assert_allclose(
        made.predict(tuesday, verbose=0)["click"], model.predict(tuesday, verbose=0)["click"], atol=1e-6
    )
    for a, b in zip(model.optimizer.variables, made.optimizer.variables, strict=True):
        if tuple(a.shape) == tuple(b.shape):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    made.fit(tuesday, batch_size=24, verbose=0)
