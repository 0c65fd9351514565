"""What every kind of feature must do. A new kind is tested the moment it is registered."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, SharedBottom
from mtl_zoo._once import computed_once, is_split, project
from mtl_zoo.features import TableStream
from mtl_zoo.features.inputs import make_inputs
from mtl_zoo.features.spec import FEATURES, Feature
from mtl_zoo.layers import FeatureEmbedding
from mtl_zoo.layers._places import call_encoder

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


def fitted(feature, cells):
    return FeatureTransform(feature, CLICK).fit(table_of(feature, cells))


def test_every_kind_has_examples():
    alone = {kind for kind in FEATURES if FEATURES[kind].entities_of is Feature.entities_of}
    assert {feature.kind for feature, _ in EXAMPLES} == alone


@every_example
def test_arrays_are_what_the_inputs_take(feature, cells):
    transform = fitted(feature, cells)
    arrays, specs = transform.encode(table_of(feature, cells)), transform.features[0].input_specs()
    assert list(arrays) == list(specs)
    for name, x in make_inputs(transform.features).items():
        assert arrays[name].shape == (len(cells), *x.shape[1:])
        assert arrays[name].dtype == x.dtype
        assert arrays[name].dtype == object or np.isfinite(arrays[name]).all()


@every_example
def test_tables_graphs_and_streams_give_the_same(feature, cells, tmp_path):
    transform, table = fitted(feature, cells), table_of(feature, cells)
    arrays, raw = transform.encode(table), transform.raw_arrays(table)
    signature = transform.raw_signature()
    assert {name: array.dtype for name, array in raw.items() if array.dtype != object} == {
        name: spec.dtype.as_numpy_dtype for name, spec in signature.items() if spec.dtype != "string"
    }
    in_graph = transform.encode_in_graph(raw)
    table.to_parquet(tmp_path / "rows.parquet")
    ((streamed, _),) = TableStream(tmp_path / "rows.parquet", transform).batches(batch_size=len(cells))
    for name, array in arrays.items():
        np.testing.assert_allclose(in_graph[name].numpy(), array, atol=1e-6)
        np.testing.assert_array_equal(streamed[name].numpy(), array)


@every_example
def test_a_saved_transform_is_the_same(feature, cells, tmp_path):
    transform, table = fitted(feature, cells), table_of(feature, cells)
    transform.save(tmp_path / "transform")
    loaded = FeatureTransform.load(tmp_path / "transform")
    assert loaded.features == transform.features and loaded.specs == transform.specs
    pd.testing.assert_frame_equal(loaded.describe(), transform.describe())
    for name, array in transform.encode(table).items():
        np.testing.assert_array_equal(loaded.encode(table)[name], array)
    again = FeatureTransform(loaded.specs, CLICK).fit(table)
    assert again.features == transform.features


@every_example
def test_a_vector_comes_of_it_and_the_layer_is_saved(feature, cells):
    transform = fitted(feature, cells)
    layer = FeatureEmbedding(transform.features, joined=True)
    x = transform.encode(table_of(feature, cells))
    vector = ops.convert_to_numpy(layer(x))
    shape = layer.compute_output_spec({name: keras.KerasTensor(a.shape, str(a.dtype)) for name, a in x.items()}).shape
    assert vector.shape == shape and np.isfinite(vector).all()
    again = FeatureEmbedding.from_config(layer.get_config())
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), vector)


@every_example
def test_one_row_beside_many_is_computed_once(feature, cells, monkeypatch):
    other = Categorical("another", size=9, dim=3)
    layer = FeatureEmbedding([*fitted(feature, cells).features, other], joined=True)
    row = {name: array[:1] for name, array in fitted(feature, cells).encode(table_of(feature, cells)).items()}
    many = {name: np.repeat(array, 7, axis=0) for name, array in row.items()} | {"another": np.arange(7)}
    expected, kernel = layer(many), np.random.default_rng(0).normal(size=(layer.bounds()["another"][1], 4))
    rows = []

    def counted(encoder, x, *others):
        rows.append(len(next(iter(x.values())) if isinstance(x, dict) else x))
        return call_encoder(encoder, x, *others)

    monkeypatch.setattr("mtl_zoo.layers.feature_embedding.call_encoder", counted)
    with computed_once({name: ops.convert_to_tensor(array) for name, array in row.items()}, 7):
        found = layer(many)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert is_split(found) and set(rows) <= {1}
    kernel = ops.convert_to_tensor(kernel.astype("float32"))
    np.testing.assert_allclose(project(found, kernel), ops.matmul(expected, kernel), atol=1e-5)


@of_each_kind
def test_a_model_of_it_is_saved_and_scores_tables(feature, cells, tmp_path):
    transform, table = fitted(feature, cells), table_of(feature, cells)
    model = SharedBottom(transform, bottom_units=(3,), tower_units=())
    model.compile("sgd", run_eagerly=True, metrics=None)
    model.fit(table, batch_size=4, verbose=0)
    scores = model.predict(table, verbose=0)["click"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(table, verbose=0)["click"], scores, atol=1e-6)
    assert np.isfinite(scores).all()


@every_example
def test_reports_know_it(feature, cells):
    transform = fitted(dataclasses.replace(feature, side="item"), cells)
    (row,) = transform.describe().to_dict("records")
    assert row["kind"] == feature.kind and row["column"] == feature.source
    assert transform.features[0].side == "item"
    assert FeatureTransform(feature, CLICK).describe()["rule"].tolist() == [feature.rule]


@every_example
def test_what_it_cannot_read_is_refused_by_name(feature, cells):
    for wrong in ([{"a": {"b": 1}}] * 6, [1 + 2j] * 6, [b"\xff\xd8raw bytes"] * 6, [None] * 6):
        with pytest.raises(ValueError, match=f"`{feature.source}` must") as refused:
            fitted(feature, wrong)
        assert "xff" not in str(refused.value)  # fault 40: no raw bytes in messages


@every_example
def test_a_typo_is_refused(feature, cells):
    with pytest.raises(TypeError, match="colum"):
        dataclasses.replace(feature, colum="x")
    with pytest.raises(ValueError, match="`column` must name a column"):
        dataclasses.replace(feature, column=3)
