"""What release 0.1.0 saved goes on working: a transform, a model with its optimizer, and a cache of encoded rows."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import FeatureTransform
from mtl_zoo.features import open_cache

FOLDER = Path(__file__).parent / "data" / "saved-0.1.0"
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the model was saved on TensorFlow")


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def rows():
    return pd.read_parquet(FOLDER / "rows.parquet")


def of(expected, what):
    return {name.split("/")[1]: array for name, array in expected.items() if name.startswith(what)}


def test_a_transform_of_0_1_0_encodes_the_same_arrays_in_both_forms(expected, rows):
    transform = FeatureTransform.load(FOLDER / "transform")
    encoded, labels = transform.encode(rows), transform.encode_labels(rows)
    in_graph = transform.encode_in_graph(transform.raw_arrays(rows))
    assert set(encoded) == set(of(expected, "encoded")) and set(labels) == set(of(expected, "label"))
    for name, array in of(expected, "encoded").items():
        np.testing.assert_array_equal(encoded[name], array)
        np.testing.assert_allclose(in_graph[name], array, atol=1e-6)
    for name, array in of(expected, "label").items():
        np.testing.assert_array_equal(labels[name], array)


def test_a_transform_of_0_1_0_is_saved_anew_without_loss(rows, tmp_path):
    transform = FeatureTransform.load(FOLDER / "transform")
    transform.save(tmp_path / "again")
    again = FeatureTransform.load(tmp_path / "again")
    assert again.features == transform.features and again.tasks == transform.tasks
    for name, array in transform.encode(rows).items():
        np.testing.assert_array_equal(again.encode(rows)[name], array)


def test_a_model_of_0_1_0_gives_the_same_scores_and_goes_on_training(expected, rows):
    model = keras.saving.load_model(FOLDER / "model.keras")
    scores = model.predict(rows, verbose=0)
    for name, array in of(expected, "score").items():
        np.testing.assert_allclose(scores[name], array, rtol=1e-6, atol=1e-6)
    assert int(model.optimizer.iterations) == 6
    model.fit(pd.read_parquet(FOLDER / "train.parquet"), batch_size=20, verbose=0)
    assert int(model.optimizer.iterations) == 9


def test_a_cache_of_0_1_0_is_that_of_its_transform():
    cached = open_cache(FOLDER / "cache", transform=FeatureTransform.load(FOLDER / "transform"))
    assert len(cached) == 60 and set(cached.labels) == {"click", "buy", "effect", "spend"}
