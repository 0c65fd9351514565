"""What every export format must keep: what it wrote scores as `predict` does, is whole, and holds each weight once.

Formats are walked in their registry, so a new one is tested from the moment that it is registered.
"""

import keras
import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, Encoded, FeatureTransform, MulticlassTask, Numeric, Sequence, create_model
from mtl_zoo.serving import FORMATS, Scoring, export

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module", params=FORMATS.names())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = 40
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, rows) + 2**53 + 1,
            "city": rng.choice(["Rome", "Oslo", None], rows),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(18, 80, rows)),
            "is new": rng.random(rows) < 0.5,
            "history": [list(rng.integers(0, 9, k)) for k in rng.integers(0, 5, rows)],
            "vector": list(rng.normal(size=(rows, 2)).astype("float32")),
            "click": rng.integers(0, 2, rows),
            "grade": rng.choice(["a", "b", "c"], rows),
        }
    )


@pytest.fixture(scope="module")
def model(table):
    """A small model with a feature of each kind."""
    features = [
        Categorical("user_id", dim=4),
        Categorical("city", dim=4),
        Categorical("is_new", column="is new", dim=4),
        Numeric("age", missing="mean"),
        Numeric("age_bucket", column="age", normalization="quantile", missing="bucket", dim=4),
        Sequence("history", dim=4, length=3),
        Encoded("vector", keras.layers.Dense(300), shape=(2,)),
    ]
    tasks = (BinaryTask("click"), MulticlassTask("grade", classes=("a", "b", "c")))
    transform = FeatureTransform(features, tasks).fit(table)
    return create_model("shared_bottom", transform, bottom_units=(64,), tower_units=(4,))


@pytest.fixture(scope="module", params=[True, False], ids=["raw", "encoded"])
def scoring(request, model):
    return Scoring(model, raw=request.param)


@pytest.fixture(scope="module")
def written(name, scoring, tmp_path_factory):
    """The folder, and the format. One that cannot hold raw columns says so before it writes."""
    writer = FORMATS[name]()
    try:
        writer.check(scoring)
    except ValueError as error:
        assert scoring.raw and "`raw` must be False" in str(error)
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp(name) / "exported"
    names = export(scoring.model, folder, name, raw=scoring.raw)
    assert list(names) == list(scoring.columns) and len(set(names.values())) == len(names)
    return folder, writer


def test_what_was_written_scores_as_predict(name, written, scoring, model, table):
    folder, writer = written
    transform = model.transform
    arrays = transform.raw_arrays(table) if scoring.raw else transform.encode(table)
    found, expected = writer.read(folder)(arrays), model.predict(table, verbose=0)
    assert set(found) == set(expected)
    for output, scores in expected.items():
        assert found[output].dtype == np.float32
        np.testing.assert_allclose(found[output], scores, rtol=writer.tolerance, atol=writer.tolerance)


# fault 39
def test_each_weight_is_written_once(name, written, model):
    folder, _ = written
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix != ".pb")
    assert size < 1.2 * 4 * model.count_params() + 4096


def test_another_model_takes_its_place_only_if_asked(name, written, scoring, model):
    folder, writer = written
    with pytest.raises(ValueError, match=f"`path` holds {writer.what}; overwrite=True"):
        export(model, folder, name, raw=scoring.raw)
    (folder.parent / "mine").mkdir(exist_ok=True)
    (folder.parent / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="`path` must be new, empty, or hold"):
        export(model, folder.parent / "mine", name, raw=scoring.raw, overwrite=True)
    assert (folder / writer.marker).exists()


# A format that writes another model's scores is found out before its folder takes its place.
def test_other_scores_count_as_not_written(name, scoring, written, tmp_path, monkeypatch):
    read = FORMATS[name].read

    def read_wrong(self, folder):
        score = read(self, folder)
        return lambda arrays: {output: scores + 0.01 for output, scores in score(arrays).items()}

    monkeypatch.setattr(FORMATS[name], "read", read_wrong)
    with pytest.raises(RuntimeError, match=f"Format {name!r} wrote a model with other scores for output 'click'"):
        export(scoring.model, tmp_path / "exported", name, raw=scoring.raw)
    assert not list(tmp_path.iterdir())
