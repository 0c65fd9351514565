"""Every model takes texts, vectors, pictures, dates, neighbours and histories beside the other features."""

import datetime
import io

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow
from toys import TASKS, compile_eagerly, sample_of, small_arguments, tasks_of

import mtl_zoo
from mtl_zoo import Categorical, Datetime, FeatureTransform, Image, Neighbours, Sequence, Text, Vector

pytestmark = pytest.mark.tensorflow
EDGES = pd.DataFrame({"source": [0, 1, 1], "target": [1, 0, 2], "weight": [1.0, 0.5, 2.0]})


def content(rows=24):
    """A table with what is known of items, some of it missing."""
    rng = np.random.default_rng(0)

    def poster():
        buffer = io.BytesIO()
        Pillow.fromarray(rng.integers(0, 256, (6, 4, 3)).astype("uint8")).save(buffer, "PNG")
        return buffer.getvalue()

    posters = [poster(), poster(), None]
    moment = datetime.datetime(2024, 1, 31)
    click = rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "item": rng.integers(0, 3, rows),
            "history": [[i % 3, 1] for i in range(rows)],
            "domain": rng.integers(0, 3, rows),
            "title": [("a good film", "", "bad one")[i % 3] for i in range(rows)],
            "trailer": [None if i == 5 else rng.normal(size=3) for i in range(rows)],
            "poster": [posters[i % 3] for i in range(rows)],
            "when": [moment + datetime.timedelta(hours=7 * i) for i in range(rows)],
            **{"click": click, "conversion": click * (np.arange(rows) % 3 > 0), "like": np.arange(rows) % 2},
            "cart": click * (np.arange(rows) % 4 > 0),
        }
    )


@pytest.mark.parametrize("name", sample_of(mtl_zoo.list_models(), always=("shared_bottom", "mmoe")))
def test_every_model_takes_what_is_known_of_items(name, tmp_path):
    table = content()
    features = [
        Categorical("item", size=3, dim=4, unknown_rate=0.1),
        Sequence("history", size=3, dim=4, length=2),
        Sequence("read", column="history", size=3, dim=4, length=2, key="item", encoder="din", query="item"),
        Text("title", "cnn", dim=3, max_length=4, vocabulary_size=30),
        Neighbours("alike", of="item", edges=EDGES, length=2, pooling="weighted"),
        Vector("trailer", encoder=4),
        Image("poster", (6, 4), encoder=3),
        Datetime("when", encoding="embedded", dim=2),
        Categorical("domain", size=3, dim=2),
    ]
    transform = FeatureTransform(features, tasks_of(name, TASKS)).fit(table)
    ordered = {"sequence": "history"} if name == "mose" else {}
    model = mtl_zoo.create_model(name, transform, **small_arguments(name), **ordered)
    compile_eagerly(model, keras.optimizers.Adam(0.01))
    assert np.isfinite(model.fit(table, batch_size=12, verbose=0).history["loss"]).all()
    scores = model.predict(table, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for output, found in loaded.predict(table, verbose=0).items():
        np.testing.assert_allclose(found, scores[output], atol=1e-6)
    # Each of them counts: another poster, or another title, gives other scores.
    for column in ("poster", "title"):
        other = model.predict(table.assign(**{column: table[column].iloc[::-1].to_numpy()}), verbose=0)
        assert any(np.abs(other[output] - found).max() > 1e-6 for output, found in scores.items()), column
