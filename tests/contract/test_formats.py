"""What every export format must keep: what it wrote scores as `predict` does, is whole, and holds each weight once.

Formats are walked in their registry, with each of their options, so a new one is tested from the moment that it is
registered.
"""

import dataclasses
import hashlib
import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from toys import build, inputs, sample_of

from mtl_zoo import (
    BinaryTask,
    Categorical,
    Encoded,
    FeatureTransform,
    MulticlassTask,
    Numeric,
    Sequence,
    create_model,
    list_models,
)
from mtl_zoo._files import DamagedFile
from mtl_zoo.serving import FORMATS, Scoring, export, load_exported
from mtl_zoo.serving.formats._manifest import MANIFEST

pytestmark = pytest.mark.tensorflow

# Models whose graph a format cannot hold, and what its error says.
CANNOT = {
    ("litert", "mose"): "`model` must be made of operations that LiteRT has.*TensorListReserve",  # of its LSTM
}


def options_of(writer):
    return dataclasses.asdict(writer) if dataclasses.is_dataclass(writer) else {}


def skip_without_packages(writer, scoring):
    try:
        writer.check(scoring)
    except ImportError as error:
        pytest.skip(str(error))


VARIANTS = {
    "-".join([name, *(str(value) for value in options_of(writer).values())]): writer
    for name in FORMATS.names()
    for writer in FORMATS[name].examples()
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def name(variant):
    return variant.name


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
        Encoded("vector", keras.layers.Dense(600), shape=(2,)),
    ]
    tasks = (BinaryTask("click"), MulticlassTask("grade", classes=("a", "b", "c")))
    transform = FeatureTransform(features, tasks).fit(table)
    return create_model("shared_bottom", transform, bottom_units=(64,), tower_units=(4,))


@pytest.fixture(scope="module", params=[True, False], ids=["raw", "encoded"])
def scoring(request, model):
    return Scoring(model, raw=request.param)


@pytest.fixture(scope="module")
def written(name, variant, scoring, tmp_path_factory):
    """The folder, and the format. One that cannot hold raw columns says so before it writes."""
    writer = variant
    try:
        skip_without_packages(writer, scoring)
    except ValueError as error:
        assert scoring.raw and "`raw` must be False" in str(error)
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp(name) / "exported"
    names = export(scoring.model, folder, name, raw=scoring.raw, **options_of(writer))
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
        export(model, folder, name, raw=scoring.raw, **options_of(writer))
    (folder.parent / "mine").mkdir(exist_ok=True)
    (folder.parent / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="`path` must be new, empty, or hold"):
        export(model, folder.parent / "mine", name, raw=scoring.raw, overwrite=True, **options_of(writer))
    assert (folder / writer.marker).exists()


# A format that writes another model's scores is found out before its folder takes its place.
def test_other_scores_count_as_not_written(name, scoring, written, tmp_path, monkeypatch):
    read = FORMATS[name].read

    def read_wrong(self, folder):
        score = read(self, folder)
        return lambda arrays: {output: scores + 1.0 for output, scores in score(arrays).items()}

    monkeypatch.setattr(FORMATS[name], "read", read_wrong)
    with pytest.raises(RuntimeError, match=f"Format {name!r} wrote a model with other scores for output 'click'"):
        export(scoring.model, tmp_path / "exported", name, raw=scoring.raw, **options_of(written[1]))
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_refused(name, model, tmp_path):
    with pytest.raises(ValueError, match=f"`options` of format {name!r} must be among its own.*Received unknown"):
        export(model, tmp_path / "exported", name, width=3)


def forged(folder):
    """The manifest says what lies there now: the format's own runtime has to notice."""
    content = json.loads((folder / MANIFEST).read_text())
    content["sha256"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in content["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(content))


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "changed": lambda data: data[:-100] + bytes(100 - i for i in range(100)),
    "hostile": lambda data: b"\xff\x00MZ" * 64,
    "empty": lambda data: b"",
}


def test_a_damaged_file_is_a_named_error(written, table, scoring, tmp_path):
    folder, writer = written
    load_exported(folder)
    for damage, change in DAMAGES.items():
        copy = tmp_path / damage
        shutil.copytree(folder, copy)
        path = copy / writer.marker
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(DamagedFile, match="whose SHA-256 is another"):
            load_exported(copy)
        if damage == "changed":
            continue  # of weights no runtime can know what they were
        forged(copy)
        with pytest.raises(DamagedFile, match=f"`path` must hold {writer.what} that can be loaded"):
            load_exported(copy)
        (copy / MANIFEST).write_text('{"format": 1, "kind": "onnx"')
        with pytest.raises(DamagedFile, match="exported.json.*which is damaged"):
            load_exported(copy)
    path.unlink()
    shutil.copy(folder / MANIFEST, copy / MANIFEST)
    with pytest.raises(DamagedFile, match="must be there. Received: none at"):
        load_exported(copy)


OTHERS = [name for name in FORMATS.names() if name != "saved_model"]  # which has this test of its own, on raw columns


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("of", sample_of(list_models(), ("mmoe",)))
def test_every_model_is_exported_or_named(of, other, tmp_path):
    model = build(of)
    skip_without_packages(FORMATS[other](), Scoring(model))
    if (other, of) in CANNOT:
        with pytest.raises(ValueError, match=CANNOT[other, of]):
            export(model, tmp_path / "exported", other)
        return
    export(model, tmp_path / "exported", other)
    x = {name: array for name, array in inputs(7).items() if name in model.input}
    found = load_exported(tmp_path / "exported")(x)
    for output, scores in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(found[output], scores, atol=1e-6)
