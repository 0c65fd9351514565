"""LiteRT: what only this format does. Scores, names and damage are tested with all formats."""

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, create_model
from mtl_zoo.export import export, load_exported, quantize

pytestmark = pytest.mark.tensorflow

CLICK = BinaryTask("click")


@pytest.fixture(scope="module")
def model():
    """One whose weights are large enough to be rounded."""
    features = [Categorical("item", size=3998, dim=16), Categorical("tags", size=98, dim=16, multi_hot=True, length=3)]
    made = create_model("shared_bottom", features, [CLICK], bottom_units=(64,), tower_units=())
    rng = np.random.default_rng(0)
    for weight in made.weights:  # scores that differ
        weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return made


def rows(number, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "item": rng.integers(0, 4000, number).astype("int32"),
        "tags": rng.integers(0, 100, (number, 3)).astype("int32"),
    }


def test_each_type_of_weights_is_smaller_and_near(model, tmp_path):
    x = rows(500)
    wanted = model.predict(x, verbose=0)["click"]
    assert wanted.std() > 0.1
    sizes, worst = {}, {}
    for weights in ("float32", "float16", "int8"):
        export(model, tmp_path / weights, "litert", weights=weights)
        sizes[weights] = (tmp_path / weights / "model.tflite").stat().st_size
        worst[weights] = float(np.abs(load_exported(tmp_path / weights)(x)["click"] - wanted).max())
    assert sizes["float16"] < 0.55 * sizes["float32"] and sizes["int8"] < 0.3 * sizes["float32"]
    assert worst["float32"] < 1e-6 < worst["float16"] < 2e-3 < 5e-2 > worst["int8"] > worst["float16"]


def test_int8_tables_alone_cost_little(model, tmp_path):
    x, found = rows(500), quantize(model)
    export(found.model, tmp_path / "exported", "litert")
    scores = load_exported(tmp_path / "exported")(x)["click"]
    np.testing.assert_allclose(scores, found.model.predict(x, verbose=0)["click"], atol=1e-6)
    assert (tmp_path / "exported" / "model.tflite").stat().st_size < 0.5 * found.bytes_before


def test_what_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`weights` must be one of the known values. Received: weights='int4'"):
        export(model, tmp_path / "exported", "litert", weights="int4")
    with pytest.raises(ValueError, match="`tolerance` must"):
        export(model, tmp_path / "exported", "litert", tolerance=0)
    with pytest.raises(RuntimeError, match="Format 'litert' wrote a model with other scores"):
        export(model, tmp_path / "exported", "litert", weights="int8", tolerance=1e-9)
    table = pd.DataFrame({"city": ["Rome", "Oslo"], "click": [0, 1]})
    transform = FeatureTransform(Categorical("city"), CLICK).fit(table)
    with pytest.raises(
        ValueError, match="`raw` must be False for format 'litert', which holds no operation on strings"
    ):
        export(create_model("shared_bottom", transform, bottom_units=(4,)), tmp_path / "exported", "litert")
    assert not list(tmp_path.iterdir())
