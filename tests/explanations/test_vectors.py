"""Vectors by value: rows of shared, split, frozen and int8 tables, and which are near."""

import numpy as np
import pandas as pd
import pytest
from keras import ops

from mtl_zoo import BinaryTask, Categorical, Embedding, EntityTable, FeatureTransform, Numeric, Sequence, create_model
from mtl_zoo.explanations import embedding_of
from mtl_zoo.export import quantize

CLICK = BinaryTask("click")


def model_of(features, name="shared_bottom", **arguments):
    units = {"bottom_units": (4,)} if name == "shared_bottom" else {}
    return create_model(name, features, [CLICK], tower_units=(), **units, **arguments)


@pytest.mark.parametrize("shards", [1, 3])
def test_vectors_are_those_that_the_model_reads(shards):
    cities = Categorical("city", vocabulary=("Rome", "Oslo", "Bonn"), dim=4)
    features = [
        Categorical("item", size=5, dim=4),
        cities,
        Sequence("seen", size=5, dim=4, key="item", length=3),
        Numeric("age"),
    ]
    model = model_of(features, embedding=Embedding(initializer="glorot_uniform", shards=shards))
    found = embedding_of(model, "city")
    assert list(found.table.index) == ["Rome", "Oslo", "Bonn", "(missing)", "(unknown)"]
    inputs = {
        "item": np.arange(5),
        "seen": np.zeros((5, 3), "int32"),
        "age": np.zeros(5),
        "city": np.array([2, 3, 4, 0, 1]),
    }
    vectors = model.get_layer("embedding").vectors_of(inputs)
    np.testing.assert_array_equal(found.table.to_numpy(), ops.convert_to_numpy(vectors["city"]))
    pd.testing.assert_frame_equal(
        embedding_of(model, "seen").table, embedding_of(model, "item").table, check_names=False
    )
    assert list(embedding_of(model, "item").table.index[:2]) == [2, 3], "values without a name are shown by their ids"
    with pytest.raises(ValueError, match="must have a table of vectors"):
        embedding_of(model, "age")


def test_the_nearest():
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [5.0, 5.0], [-1.0, 0.0]], "float32")
    cities = Categorical("city", vocabulary=("a", "b", "c", "d"), dim=2, pretrained=vectors)
    found = embedding_of(model_of([cities]), "city")
    assert list(found.nearest("a")["value"]) == ["b", "c", "d"]
    assert list(found.nearest("a", k=1, metric="dot")["value"]) == ["c"]
    near = found.nearest("a", k=2, metric="euclidean")
    assert list(near["value"]) == ["b", "d"]
    np.testing.assert_allclose(near["euclidean"], [0.02**0.5, 2.0], rtol=1e-5)
    np.testing.assert_allclose(found.nearest("a")["cosine"].iloc[0], 0.9 / np.hypot(0.9, 0.1), rtol=1e-5)
    with pytest.raises(ValueError, match="`value` must be one of feature 'city'"):
        found.nearest("e")


def test_a_model_with_several_embeddings_is_asked_by_name():
    model = model_of([Categorical("item", size=5, dim=4)], "stem")
    with pytest.raises(ValueError, match="`embedding` must name one"):
        embedding_of(model, "item")
    with pytest.raises(ValueError, match="`feature`"):
        embedding_of(model, "user", "shared_embedding")
    shared, own = (embedding_of(model, "item", f"{name}_embedding").table for name in ("shared", "click"))
    assert (shared.to_numpy() != own.to_numpy()).any()


@pytest.mark.tensorflow
def test_values_of_an_entity_table_and_int8_rows():
    films = pd.DataFrame({"film": [7, 8, 9], "genre": ["crime", "drama", "war"]})
    rows = pd.DataFrame({"film": [7, 8, 9, 7], "click": [0, 1, 0, 1]})
    features = [Categorical("film", dim=4), Categorical("genre", dim=4)]
    model = model_of(FeatureTransform(features, [CLICK], entities=EntityTable(films, key="film")).fit(rows))
    assert sorted(embedding_of(model, "genre").table.index[:-2]) == ["crime", "drama", "war"]
    found = embedding_of(model, "film").table
    assert sorted(found.index[:-2]) == [7, 8, 9]
    small = embedding_of(quantize(model).model, "film").table
    np.testing.assert_allclose(small, found, atol=float(np.abs(found.to_numpy()).max()) / 200)


def test_a_feature_of_one_embedding_among_several_needs_no_name():
    position = Categorical("position", vocabulary=(1, 2, 3), dim=2, bias=True)
    items = Categorical("item", vocabulary=("a", "(missing)"), dim=4)
    model = create_model("shared_bottom", [items, position], [BinaryTask("click", bias="add")], bottom_units=(4,))
    found = embedding_of(model, "position")
    assert found.embedding == "click_bias_embedding" and list(found.nearest(2)["value"].sort_values()) == [1, 3]
    for value in (True, [], "2"):
        with pytest.raises(ValueError, match="`value` must be one of feature 'position'"):
            found.nearest(value)
    # A value that has the name of what is missing is itself.
    assert list(embedding_of(model, "item").nearest("(missing)")["value"]) == ["a"]
