"""What folders hold: scores over HTTP are those of `predict`, in whatever form the model was saved."""

import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from service_case import served, until
from toys import build, inputs

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric, Sequence, create_model
from mtl_zoo.export import export, export_serving
from mtl_zoo.service.servables import kind_in, load_servable

pytestmark = pytest.mark.tensorflow

TABLE = pd.DataFrame(
    {
        "city": ["Rome", "Oslo", None, "Köln"],
        "item id": [7, 8, 7, 9],
        "tags": [["a"], [], ["b", "a", "c"], ["b"]],
        "age": [31.5, np.nan, 7.0, 50.0],
        "click": [0, 1, 0, 1],
        "buy": [0, 1, 0, 0],
    }
)
FEATURES = [
    Categorical("city", dim=2),
    Categorical("item", column="item id", dim=2),
    Sequence("tags", length=4, dim=2),
    Numeric("age", missing="mean"),
]


@pytest.fixture(scope="module")
def model():
    transform = FeatureTransform(FEATURES, [BinaryTask("click"), BinaryTask("buy", sample_space="click")]).fit(TABLE)
    return create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(2,))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "shop"
    (path / "1").mkdir(parents=True)
    model.save(path / "1" / "model.keras")
    export_serving(model, path.parent / "exported")
    return path


@pytest.fixture(scope="module")
def client(folder):
    """Both versions are loaded, the second one after the first."""
    with served(folder, keep=2, deadline=20.0) as made:
        (folder.parent / "exported").rename(folder / "2")
        until(lambda: made.service.versions.current.number == 2)
        yield made


def rows(names):
    """The table as JSON: missing is null."""
    table = TABLE.astype(object).where(TABLE.notna(), None)
    return [
        {names.get(name, name): row[name] for name in ("city", "item id", "tags", "age")} for _, row in table.iterrows()
    ]


@pytest.mark.parametrize("version, kind, names", [(1, "keras_model", {}), (2, "saved_model", {"item id": "item_id"})])
def test_scores_are_those_of_predict(model, folder, client, version, kind, names):
    assert kind_in(folder / str(version)).kind == kind
    expected = model.predict(TABLE, verbose=0)
    path = f"/v1/models/shop/versions/{version}:predict"
    status, found = client.post(path, {"instances": rows(names)})
    assert status == 200, found
    for name, scores in expected.items():
        np.testing.assert_allclose([row[name] for row in found["predictions"]], scores, atol=1e-6)
    columns = {name: [row[name] for row in rows(names)] for name in rows(names)[0]}
    status, found = client.post(path, {"inputs": columns})
    for name, scores in expected.items():
        np.testing.assert_allclose(found["outputs"][name], scores, atol=1e-6)
    status, found = client.post(path, {"inputs": columns | {"city": [1, 2, 3, 4]}})
    assert status == 400 and "column 'city' must hold a string" in found["error"]


def test_a_model_of_feature_specs_takes_its_own_inputs(tmp_path):
    """Of a file, without a folder of versions; and exported."""
    model, x = build("shared_bottom"), inputs(3)
    model.save(tmp_path / "plain.keras")
    export(model, tmp_path / "plain" / "1", raw=False)
    expected = model.predict(x, verbose=0)
    for place in ("plain.keras", "plain"):
        with served(tmp_path / place, deadline=20.0) as client:
            given = {name: values.tolist() for name, values in x.items()}
            status, found = client.post("/v1/models/plain:predict", {"inputs": given})
            assert status == 200, found
            for name, scores in expected.items():
                np.testing.assert_allclose(found["outputs"][name], scores, atol=1e-5)
            if place == "plain.keras":  # a SavedModel does not say how many rows its tables have
                wrong = {**given, "user_id": [1, 2, 10**6]}
                status, found = client.post("/v1/models/plain:predict", {"inputs": wrong})
                assert status == 400 and "column 'user_id' must be ids of its table" in found["error"]
            short = {**given, "tags": [[1, 2]] * 3}
            status, found = client.post("/v1/models/plain:predict", {"inputs": short})
            assert status == 400 and "column 'tags' must hold lists of 3 values" in found["error"]


def test_files_that_are_no_model_are_refused(tmp_path, folder, client):
    (tmp_path / "1").mkdir()
    whole = (folder / "1" / "model.keras").read_bytes()
    (tmp_path / "1" / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match="zip|Zip|truncated|not a"):
        load_servable(tmp_path / "1")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "1" / "model.keras")
    with pytest.raises(ValueError, match="must hold a model of the zoo. Received: a Sequential"):
        load_servable(tmp_path / "1")
    (tmp_path / "1" / "other.keras").write_bytes(whole)
    with pytest.raises(ValueError, match=r"must hold one \.keras file. Received: \['model.keras', 'other.keras'\]"):
        load_servable(tmp_path / "1")


def test_a_truncated_saved_model_rolls_back(tmp_path, folder, client):
    shutil.copytree(folder / "2", tmp_path / "shop" / "1")
    with served(tmp_path / "shop", deadline=20.0) as other:
        shutil.copytree(folder / "2", tmp_path / "new")
        graph = tmp_path / "new" / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:1000])
        (tmp_path / "new").rename(tmp_path / "shop" / "2")
        until(lambda: other.get("/ready")[1]["failed"])
        status, found = other.get("/ready")
        assert status == 200 and found["served"] == "1" and set(found["failed"]) == {"2"}
        body = json.dumps({"instances": rows({"item id": "item_id"})}).encode()
        assert other.post("/v1/models/shop:predict", body)[0] == 200


def test_metadata_says_the_types_of_outputs(tmp_path):
    import tensorflow as tf

    def outputs_of(x):
        return {name: tf.cast(x[:, None], kind) for name, kind in kinds.items()}

    kinds, module = {"ids": "int64", "halves": "float16", "small": "uint8"}, tf.Module()
    run = tf.function(outputs_of, input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "counts" / "1"), signatures=run)
    with served(tmp_path / "counts") as client:
        status, found = client.get("/v1/models/counts/metadata")
    outputs = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["outputs"]
    assert status == 200
    assert {n: o["dtype"] for n, o in outputs.items()} == {"ids": "DT_INT64", "halves": "DT_HALF", "small": "DT_UINT8"}


def test_outputs_of_strings_are_refused_by_name(tmp_path):
    """An exported recommender gives ids, which are no scores."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((None,), tf.float32, name="age")
    run = tf.function(lambda age: {"item": tf.as_string(age)[:, None], "score": age[:, None]}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "lists"), signatures=run)
    with pytest.raises(ValueError, match=r"the outputs \['item'\] of strings"):
        load_servable(tmp_path / "lists")
