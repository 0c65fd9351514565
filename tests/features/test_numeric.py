"""Numeric: how its number enters a model as a vector; its moments and missing values are in test_transform.py."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from feature_tables import CLICK, table
from keras import ops

from mtl_zoo import FeatureTransform, Numeric
from mtl_zoo.features import TableStream
from mtl_zoo.features.base import feature_from_config
from mtl_zoo.layers import FeatureEmbedding, PiecewiseLinearEncoder

PIECEWISE = Numeric("x", normalization=None, encoding="piecewise_linear", pieces=4, dim=3)


def boundaries(feature, values):
    return FeatureTransform(feature).fit(pd.DataFrame({"x": values})).features[0].boundaries


def test_pieces_have_equal_shares_of_the_rows():
    values = np.random.default_rng(0).lognormal(size=4001)
    edges = boundaries(PIECEWISE, values)
    assert len(edges) == 5 and edges[0] == np.float32(values.min()) and edges[-1] == np.float32(values.max())
    counts, _ = np.histogram(values.astype("float32"), edges)
    assert counts.max() - counts.min() <= 2


def test_few_distinct_values_have_a_boundary_each():
    assert boundaries(PIECEWISE, [3, 1, 1, 7, 3, 2, 2, 7]) == (1.0, 2.0, 3.0, 7.0)
    assert boundaries(PIECEWISE, [1, 2, 3, 4, 5]) == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_a_value_that_most_rows_have_is_one_boundary():
    edges = boundaries(PIECEWISE, [0.0] * 90 + list(range(1, 11)))
    assert edges[0] == 0.0 and edges[-1] == 10.0 and len(edges) < 5
    assert all(high > low for low, high in itertools.pairwise(edges))


def test_a_constant_has_one_piece():
    assert boundaries(PIECEWISE, [5.0, 5.0]) == (5.0, 10.0)
    assert boundaries(dataclasses.replace(PIECEWISE, normalization="standardize"), [5.0, 5.0]) == (0.0, 1.0)


def test_numbers_that_are_nearer_than_a_piece_can_be_are_one_boundary():
    assert boundaries(PIECEWISE, [0.0, 1e-40, 1.0]) == (0.0, 1.0)
    assert boundaries(PIECEWISE, [0.0, 1e-40]) == (0.0, 1.0)
    values = [-1e20, 1e20, 0.0, 1e-20]  # 1e-40 once standardised
    edges = boundaries(dataclasses.replace(PIECEWISE, normalization="standardize"), values)
    assert np.isfinite(ops.convert_to_numpy(PiecewiseLinearEncoder([edges]).pieces(np.zeros((1, 1))))).all()


def test_boundaries_are_in_units_of_the_normalised_number():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    edges = boundaries(dataclasses.replace(PIECEWISE, normalization="log"), values)
    logs = np.log1p(values)
    np.testing.assert_allclose(edges, (logs - logs.mean()) / logs.std(), rtol=1e-5)


def test_arrays_are_those_of_a_number_without_encoding():
    frame = table(x=[1.0, None, 3.0, 8.0])
    plain, encoded = (
        FeatureTransform(Numeric("x", encoding=encoding), CLICK).fit(frame).encode(frame)
        for encoding in (None, "piecewise_linear")
    )
    assert list(plain) == list(encoded) == ["x", "x.missing"]
    for name, array in plain.items():
        np.testing.assert_array_equal(encoded[name], array)


def test_numbers_of_one_encoding_share_a_layer_and_nothing_else():
    frame = pd.DataFrame({"a": [1.0, 2.0, 5.0], "b": [3.0, np.nan, 4.0], "c": [0.0, 1.0, 7.0], "d": [9.0, 8.0, 1.0]})
    kinds = {"a": "piecewise_linear", "b": "piecewise_linear", "c": None, "d": "piecewise_linear"}
    features = [Numeric(name, encoding=encoding, dim=4) for name, encoding in kinds.items()]
    transform = FeatureTransform(features).fit(frame)
    x = transform.encode(frame)
    layer = FeatureEmbedding(transform.features)
    vectors = {name: ops.convert_to_numpy(vector) for name, vector in layer(x).items()}
    assert {name: vector.shape[1] for name, vector in vectors.items()} == {"a": 4, "b": 5, "c": 1, "d": 4}
    assert len(layer.number_encoders) == 1
    np.testing.assert_array_equal(vectors["b"][:, 4], [0, 1, 0])
    # Each number by a layer of its own with its part of the weights.
    (encoder,) = layer.number_encoders.values()
    kernel, bias = (ops.convert_to_numpy(weight) for weight in encoder.weights)
    for i, name in enumerate(["a", "d", "b"]):  # those with an indicator come last
        alone = FeatureEmbedding([f for f in transform.features if f.name == name])
        alone.build()
        alone.set_weights([kernel[i : i + 1, : len(alone.features[0].boundaries)], bias[i : i + 1]])
        expected = ops.convert_to_numpy(alone({n: x[n] for n in alone.features[0].input_specs()})[name])
        np.testing.assert_allclose(vectors[name], expected, atol=1e-6)
    joined = FeatureEmbedding(transform.features, joined=True)
    joined.build()
    joined.set_weights(layer.get_weights())
    np.testing.assert_array_equal(
        ops.convert_to_numpy(joined(x)), np.concatenate([vectors[name] for name in "abcd"], axis=1)
    )
    assert joined.bounds() == {"a": (0, 4), "b": (4, 9), "c": (9, 10), "d": (10, 14)}


def test_extending_leaves_the_boundaries_where_the_model_has_them():
    before = FeatureTransform(PIECEWISE, CLICK).fit(table(x=[1.0, 2.0, 3.0]))
    after = before.extend(table(x=[50.0, 60.0]), numbers="refit")
    assert after.features == before.features


@pytest.mark.tensorflow
def test_streams_learn_nothing_new(tmp_path):
    frame = table(x=[1.0, 2.0, 30.0, 4.0])
    frame.to_parquet(tmp_path / "rows.parquet")
    transform = FeatureTransform(PIECEWISE, CLICK).fit(frame)
    ((inputs, _),) = TableStream(tmp_path / "rows.parquet", transform).batches(4)
    np.testing.assert_array_equal(inputs["x"].numpy(), frame["x"].astype("float32"))


def test_config_has_what_0_1_0_wrote_and_the_rest_where_it_differs():
    new = {"encoding", "pieces", "frequencies", "frequency_scale", "indicator", "boundaries"}
    assert not new & set(Numeric("x").get_config())
    fitted = FeatureTransform(PIECEWISE).fit(pd.DataFrame({"x": [1.0, 2.0]})).features[0]
    assert new & set(fitted.get_config()) == {"encoding", "pieces", "boundaries"}
    assert feature_from_config(fitted.get_config()) == fitted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoding": "ple"}, "`encoding` must be"),
        (
            {"encoding": "periodic", "normalization": "quantile"},
            "`encoding` must be None with normalization='quantile'",
        ),
        ({"pieces": 0}, "`pieces` must be a whole number"),
        ({"frequencies": 0}, "`frequencies` must be a whole number"),
        ({"frequency_scale": 0}, "`frequency_scale` must be"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Numeric("x", **arguments)


def test_a_model_needs_the_boundaries():
    with pytest.raises(ValueError, match=r"Received without: \['x'\]"):
        FeatureEmbedding([PIECEWISE])
    assert FeatureEmbedding([dataclasses.replace(PIECEWISE, boundaries=[0, 1])]).features[0].boundaries == (0.0, 1.0)
