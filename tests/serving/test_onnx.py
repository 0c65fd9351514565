"""ONNX: what only this format does. Scores, names and damage are tested with all formats."""

import importlib.util

import keras
import numpy as np
import pandas as pd
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mtl_zoo import BinaryTask, Categorical, Encoded, FeatureTransform, Numeric, Sequence, create_model  # noqa: E402
from mtl_zoo.export import export, load_exported, quantize  # noqa: E402
from mtl_zoo.serving.formats import _base  # noqa: E402

pytestmark = pytest.mark.tensorflow

CLICK = BinaryTask("click")


def test_a_session_knows_columns_and_scores_by_name(tmp_path):
    features = [
        Categorical("click", size=9),
        Categorical("tags", size=9, multi_hot=True, length=3),
        Numeric("age", missing="mean", indicator=True),
    ]
    model = create_model("shared_bottom", features, [CLICK], bottom_units=(4,), tower_units=())
    names = export(model, tmp_path / "exported", "onnx")
    # A score has the name `click` already, and a dot is no part of a name.
    assert names == {"click": "click_2", "tags": "tags", "age": "age", "age.missing": "age_missing"}
    session = onnxruntime.InferenceSession(str(tmp_path / "exported" / "model.onnx"))
    assert {i.name: i.shape for i in session.get_inputs()} == {
        "click_2": ["rows"],
        "tags": ["rows", 3],
        "age": ["rows"],
        "age_missing": ["rows"],
    }
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("click", ["rows", 1])]
    x = {
        "click": np.array([1, 2], "int32"),
        "tags": np.array([[2, 3, 0], [0, 0, 0]], "int32"),
        "age": np.array([0.5, 0], "float32"),
        "age.missing": np.array([0, 1], "float32"),
    }
    found = session.run(["click"], {names[column]: array for column, array in x.items()})[0]
    np.testing.assert_allclose(found, model.predict(x, verbose=0)["click"], atol=1e-6)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(60) < 0.2, np.nan, rng.normal(40, 9, 60)),
            "hour": rng.integers(0, 24, 60),
            "city": rng.choice(["Rome", "Oslo"], 60),
            "item": rng.integers(5, 9, 60),
            "click": rng.integers(0, 2, 60),
        }
    )


def test_raw_columns_are_taken_where_encoding_needs_no_lookup(table, tmp_path):
    features = [Categorical("hour", size=24), Categorical("position", column="item", size=9)]
    transform = FeatureTransform(features, CLICK).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=())
    export(model, tmp_path / "exported", "onnx")
    found = load_exported(tmp_path / "exported")(transform.raw_arrays(table))
    np.testing.assert_allclose(found["click"], model.predict(table, verbose=0)["click"], atol=1e-5)


def test_features_that_cannot_be_encoded_are_named(table, tmp_path):
    transform = FeatureTransform([Numeric("age", missing="mean"), Categorical("city"), Categorical("item")], CLICK).fit(
        table
    )
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=())
    rule = (
        r"`raw` must be False for format 'onnx', which lacks.*city \(Categorical\) needs .*item \(Categorical\) needs"
    )
    with pytest.raises(ValueError, match=rule) as error:
        export(model, tmp_path / "exported", "onnx")
    assert "hour" not in str(error.value) and not list(tmp_path.iterdir())


def test_inputs_that_are_strings_are_refused(tmp_path):
    words = keras.layers.TextVectorization(max_tokens=5, output_mode="multi_hot", vocabulary=["a", "b"])
    model = create_model("shared_bottom", [Encoded("title", words, dtype="string")], [CLICK], bottom_units=(4,))
    with pytest.raises(ValueError, match=r"`model` must not take strings for format 'onnx'.*\['title'\]"):
        export(model, tmp_path / "exported", "onnx")


def test_int8_tables_stay_int8(tmp_path):
    features = [Categorical("item", size=3998, dim=16), Sequence("history", size=3998, dim=16, key="item", length=3)]
    model = create_model("shared_bottom", features, [CLICK], bottom_units=(4,), tower_units=())
    sizes = []
    for i, one in enumerate((model, quantize(model).model)):
        export(one, tmp_path / str(i), "onnx")
        path = tmp_path / str(i) / "model.onnx"
        sizes.append(path.stat().st_size)
        kinds = {t.data_type for t in onnx.load(str(path)).graph.initializer if list(t.dims) == [4000, 16]}
        assert kinds == {onnx.TensorProto.INT8 if i else onnx.TensorProto.FLOAT}
    assert sizes[0] - sizes[1] == pytest.approx(4000 * (64 - 20), rel=0.06)


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    model = create_model("shared_bottom", [Numeric("age")], [CLICK], bottom_units=(4,))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tf2onnx" else find(name, *a))
    with pytest.raises(ImportError, match=r"`format` 'onnx' needs the extra: pip install mtl-zoo\[onnx\].*'tf2onnx'"):
        export(model, tmp_path / "exported", "onnx")


def test_more_than_a_file_can_hold_is_refused(monkeypatch, tmp_path):
    model = create_model("shared_bottom", [Numeric("age")], [CLICK], bottom_units=(4,))
    monkeypatch.setattr(_base, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="`model` must have less than 2 GiB of weights for format 'onnx'"):
        export(model, tmp_path / "exported", "onnx")
