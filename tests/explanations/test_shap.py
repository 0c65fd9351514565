"""A model as the function that shap's explainers take."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, MulticlassTask, Numeric, create_model
from mtl_zoo.explanations import shap_arguments

pytestmark = pytest.mark.tensorflow
COLUMNS = ["city", "price"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    cities = rng.choice(["Rome", "Oslo", "Bonn"], 60)
    labels = {"click": rng.integers(0, 2, 60), "genre": rng.choice(["war", "love"], 60)}
    return pd.DataFrame({"city": cities, "price": rng.normal(size=60), **labels})


@pytest.fixture(scope="module")
def model(table):
    tasks = [BinaryTask("click"), MulticlassTask("genre", classes=("war", "love"))]
    transform = FeatureTransform([Categorical("city", dim=2), Numeric("price")], tasks).fit(table)
    return create_model("shared_bottom", transform, bottom_units=(8,), tower_units=())


def test_scores_of_frames_and_of_arrays(model, table):
    expected = model.predict(table, verbose=0)
    click, genre = (shap_arguments(model, table, task)[0] for task in ("click", "genre"))
    np.testing.assert_allclose(click(table), expected["click"][:, 0], atol=1e-6)
    np.testing.assert_allclose(click(table[COLUMNS].to_numpy(object)), expected["click"][:, 0], atol=1e-6)
    np.testing.assert_allclose(genre(table[COLUMNS].to_numpy(object)), expected["genre"], atol=1e-6)
    with pytest.raises(ValueError, match="`task`"):
        shap_arguments(model, table, "like")


def test_masked_columns_are_those_of_the_background(model, table):
    scores, masker = shap_arguments(model, table.iloc[:5], "click")
    row = np.array(["Oslo", 7.0], object)
    (rows,) = masker(np.array([True, False]), row)
    np.testing.assert_allclose(scores(rows), scores(table.iloc[:5].assign(city="Oslo")), atol=1e-6)
    with pytest.raises(ValueError, match="`background` must have at least one row"):
        shap_arguments(model, table.iloc[:0], "click")
    with pytest.raises(ValueError, match=r"`background` must have the columns .* without: \['city'\]"):
        shap_arguments(model, table.drop(columns="city"), "click")
    with pytest.raises(TypeError, match="`background` must be a DataFrame"):
        shap_arguments(model, table.to_numpy(), "click")


@pytest.mark.extended
def test_shap_explains_what_it_gives(model, table):
    shap = pytest.importorskip("shap")
    scores, masker = shap_arguments(model, table.iloc[:20], "click")
    found = shap.explainers.Exact(scores, masker)(table[COLUMNS].iloc[:3])
    assert found.values.shape == (3, 2) and found.feature_names == COLUMNS
    expected = scores(table.iloc[:3])
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base_values, expected, atol=1e-5)
    np.testing.assert_allclose(found.base_values, scores(table.iloc[:20]).mean(), atol=1e-5)
