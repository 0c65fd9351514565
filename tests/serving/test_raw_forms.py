"""A column's pandas form and its graph form agree on every value, bad ones included; an export never answers NaN."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, create_model
from mtl_zoo.serving import Scoring

pytestmark = pytest.mark.tensorflow

BAD = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e308, -1e308, 5e-324, 2.0**53 + 2, -1.0, 2.5]
TEXTS = ["", " ", "a", "A", "nan", "inf", "None", "\x00", "é", "é", "城市", "x" * 10_000, "-1", "3.0", "1e400"]
WHOLE = [-(2**63), 2**63 - 1, -1, 0, 1, 2**31, 2**53 + 1]


NUMERICS = [
    Numeric("x", normalization=normalization, missing=missing, buckets=3, dim=2)
    for normalization in ("standardize", "log", "quantile", None)
    for missing in (None, "mean", 0.0, *(["bucket"] if normalization == "quantile" else []))
]


def fitted(feature, values):
    table = pd.DataFrame({feature.source: values, "click": np.arange(len(values)) % 2})
    return FeatureTransform(feature, BinaryTask("click")).fit(table)


def compare(transform, values):
    """Values with a score that is not finite. Each is encoded alone, as one that is refused says nothing of others."""
    import tensorflow as tf

    (feature,) = transform.features
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(4,))
    scoring = Scoring(model, raw=True)
    raw = tf.constant(values, scoring.columns[feature.source].dtype)
    graph = {name: array.numpy() for name, array in transform.encode_in_graph({feature.source: raw}).items()}
    scores = scoring({feature.source: raw})["click"].numpy()
    unscored = [value for value, score in zip(values, scores, strict=True) if not np.isfinite(score).all()]
    for i, value in enumerate(values):
        try:
            encoded = transform.encode(pd.DataFrame({feature.source: [value]}))
        except ValueError:
            continue  # refused: then the graph's scores must be finite, and no more
        for name, array in encoded.items():
            np.testing.assert_allclose(graph[name][i], array[0], rtol=1e-6, atol=1e-6, err_msg=repr(value))
    return unscored


# fault 19
@pytest.mark.parametrize("feature", NUMERICS, ids=lambda f: f"{f.normalization}-{f.missing}")
def test_numbers(feature):
    assert not compare(fitted(feature, [1.0, 2.0, 4.0, 8.0]), BAD)


# fault 19
@pytest.mark.parametrize("feature", NUMERICS, ids=lambda f: f"{f.normalization}-{f.missing}")
def test_whole_numbers_as_numbers(feature):
    assert not compare(fitted(feature, [1, 2, 4, 8]), WHOLE[1:])


# fault 19
@pytest.mark.parametrize(
    "feature, values",
    [
        (Categorical("x", dim=2), ["a", "b", "é"]),
        (Categorical("x", dim=2, hash_buckets=7), ["a", "b", "é"]),
        (Sequence("x", dim=2, length=3), ["a|b", "é", "a"]),
    ],
    ids=["listed", "hashed", "sequence"],
)
def test_text(feature, values):
    assert not compare(fitted(feature, values), [*TEXTS, "a|b", "|", "a||b"])


# fault 19
@pytest.mark.parametrize("options", [{}, {"hash_buckets": 7}, {"size": 5}], ids=["listed", "hashed", "range"])
def test_whole_numbers_as_ids(options):
    assert not compare(fitted(Categorical("x", dim=2, **options), [1, 2, 3]), WHOLE[1:])
