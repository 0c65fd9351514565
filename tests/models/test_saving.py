"""`save` and `export` of a model keep what the zoo promises: whole files, scores, the transform."""

import os

import keras
import numpy as np
import pandas as pd
import pytest
from toys import build, inputs

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model


@pytest.fixture(scope="module")
def model():
    return build("shared_bottom")


class Killed(BaseException):
    pass


def kill(monkeypatch, call):
    """Calls `call`, which ends where the new file is to take the old one's place."""

    def replace(source, target):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace)
        call()


# fault 38
@pytest.mark.parametrize("method, name", [("save", "m.keras"), ("save_weights", "m.weights.h5")])
def test_a_file_is_replaced_whole(model, tmp_path, monkeypatch, method, name):
    path = tmp_path / name
    write = getattr(model, method)
    write(path)
    before = path.read_bytes()
    model.get_layer("click_head").bias.assign_add([2.0])
    kill(monkeypatch, lambda: write(path))
    assert path.read_bytes() == before
    write(str(path))
    assert path.read_bytes() != before and [p.name for p in tmp_path.iterdir()] == [name]
    with pytest.raises(ValueError, match="`filepath` exists; overwrite=True"):
        write(path, overwrite=False)


def test_what_was_saved_loads(model, tmp_path):
    x = inputs(8)
    for name, zipped in (("m.keras", None), ("folder", False)):
        model.save(tmp_path / name, zipped=zipped)
        loaded = keras.saving.load_model(tmp_path / name)
        np.testing.assert_allclose(loaded.predict(x, verbose=0)["click"], model.predict(x, verbose=0)["click"])
    model.save(tmp_path / "folder", zipped=False)


# fault 2
@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_the_old_format_is_refused(model, tmp_path, name):
    with pytest.raises(ValueError, match=r"`filepath` must end in '.keras'"):
        model.save(tmp_path / name)


# fault 3
@pytest.mark.tensorflow
def test_export_gives_scores_of_raw_columns(tmp_path):
    import tensorflow as tf

    table = pd.DataFrame({"city": ["Rome", "Oslo"] * 4, "click": [1, 0] * 4})
    transform = FeatureTransform(Categorical("city"), BinaryTask("click")).fit(table)
    model = create_model("shared_bottom", transform, bottom_units=(4,), tower_units=(4,))
    assert model.export(tmp_path / "exported") == {"city": "city"}
    served = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    scores = served(city=tf.constant(table["city"].to_numpy()))["click"]
    np.testing.assert_allclose(scores, model.predict(table, verbose=0)["click"], atol=1e-6)
    with pytest.raises(ValueError, match="`format` must be one of the known values.*'saved_model'"):
        model.export(tmp_path / "other", format="tf_saved_model")
