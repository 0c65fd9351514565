"""Every kind of feature, read from a table of entities: what rows get is what a column of their own would give."""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, EntityTable, FeatureTransform, SharedBottom
from mtl_zoo.features import TableStream, open_cache, write_cache
from mtl_zoo.features.spec import FEATURES
from mtl_zoo.serving import export

CLICK = BinaryTask("click")
EXAMPLES = [example for kind in FEATURES for example in FEATURES[kind].examples()]
every_example = pytest.mark.parametrize(
    ("feature", "cells"), EXAMPLES, ids=[f"{f.kind}: {f.rule}" for f, _ in EXAMPLES]
)
FIRSTS = [examples[0] for kind in FEATURES if (examples := FEATURES[kind].examples())]  # an export takes its time
pytestmark = pytest.mark.tensorflow


def fitted(feature, cells):
    """The transform, and rows that name every entity, some of them twice."""
    entity = np.array([f"e{i}" for i in range(len(cells))])
    items = pd.DataFrame({"entity": entity, feature.source: pd.Series(cells)})
    places = np.append(np.arange(len(cells))[::-1], [0, 2, 2])
    rows = pd.DataFrame({"entity": entity[places], "click": np.arange(len(places)) % 2})
    return FeatureTransform(feature, CLICK, entities=EntityTable(items, key="entity")).fit(rows), rows, places


@every_example
def test_rows_get_what_their_entities_hold(feature, cells, tmp_path):
    transform, rows, places = fitted(feature, cells)
    own = FeatureTransform(feature, CLICK).fit(
        pd.DataFrame({feature.source: pd.Series(cells), "click": np.arange(len(cells)) % 2})
    )
    assert transform.features == own.features
    wanted = own.encode(pd.DataFrame({feature.source: pd.Series(cells)}))
    arrays, in_graph = transform.encode(rows), transform.encode_in_graph(transform.raw_arrays(rows))
    rows.to_parquet(tmp_path / "rows.parquet")
    ((streamed, _),) = TableStream(tmp_path / "rows.parquet", transform).batches(batch_size=len(rows))
    assert list(arrays) == list(wanted) == list(in_graph)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name][places])
        np.testing.assert_array_equal(in_graph[name].numpy(), array)
        np.testing.assert_array_equal(streamed[name].numpy(), array)
    assert transform.columns == ("entity",) and list(transform.raw_signature()) == ["entity"]
    if all(array.dtype != object for array in arrays.values()):
        write_cache((arrays, transform.encode_labels(rows)), tmp_path / "cache", transform=transform)
        cached = open_cache(tmp_path / "cache", transform=transform)
        np.testing.assert_array_equal(cached.inputs[feature.name], arrays[feature.name])


@every_example
def test_a_saved_transform_keeps_its_entities(feature, cells, tmp_path):
    transform, rows, _ = fitted(feature, cells)
    transform.save(tmp_path / "transform")
    loaded = FeatureTransform.load(tmp_path / "transform")
    for name, array in transform.encode(rows).items():
        np.testing.assert_array_equal(loaded.encode(rows)[name], array)
    again = FeatureTransform(loaded.specs, CLICK, entities=loaded.entities).fit(rows)
    assert again.features == transform.features


@pytest.mark.parametrize(("feature", "cells"), FIRSTS, ids=[f.kind for f, _ in FIRSTS])
def test_a_model_takes_ids_and_its_export_knows_the_entities(feature, cells, tmp_path):
    import tensorflow as tf

    transform, rows, _ = fitted(feature, cells)
    model = SharedBottom(transform, bottom_units=(3,), tower_units=())
    scores = model.predict(rows, verbose=0)["click"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(rows, verbose=0)["click"], scores, atol=1e-6)
    assert export(loaded, tmp_path / "exported") == {"entity": "entity"}
    served = tf.saved_model.load(tmp_path / "exported")
    ids = tf.constant([*rows["entity"], "nobody", ""])
    found = served.signatures["serving_default"](entity=ids)["click"].numpy()
    np.testing.assert_allclose(found[: len(rows)], scores, atol=1e-6)
    assert np.isfinite(found).all() and found[-1] == found[-2]
