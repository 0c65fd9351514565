"""A transform's folder, when someone has changed it."""

import json

import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo._files import DamagedFile

TABLE = pd.DataFrame({"city": ["Rome", "Oslo", "Rome"], "age": [1.0, 2.0, 3.0], "click": [0, 1, 0]})


@pytest.fixture
def folder(tmp_path):
    features = (Categorical("city"), Numeric("age"))
    FeatureTransform(features, BinaryTask("click")).fit(TABLE).save(tmp_path / "t")
    return tmp_path / "t"


KEYS = ("format", "specs", "tasks", "sample_weight", "columns", "states", "sizes", "arrays", "summaries", "notes")


# fault 32
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["lacks", 4, [4]])
def test_damaged_metadata_is_one_named_error(folder, key, value):
    meta = json.loads((folder / "transform.json").read_text())
    assert set(meta) == set(KEYS)
    if value == "lacks":
        del meta[key]
    else:
        meta[key] = value
    (folder / "transform.json").write_text(json.dumps(meta))
    if (key, value) == ("format", 4):
        with pytest.raises(ValueError, match="holds a transform of format 4, written by a newer version"):
            FeatureTransform.load(folder)
    elif (key, value) != ("notes", [4]):
        with pytest.raises(DamagedFile, match="A file of a transform must be as it was written. Received: '.*json'"):
            FeatureTransform.load(folder)


# fault 32
@pytest.mark.parametrize("name", ["../city.parquet", "/etc/passwd", 3])
def test_names_of_files_lead_out_of_no_folder(folder, name):
    meta = json.loads((folder / "transform.json").read_text())
    ((file, where),) = [
        (config["file"], config) for states in meta["states"].values() for config in states.values() if "file" in config
    ]
    (folder.parent / "city.parquet").write_bytes((folder / file).read_bytes())
    where["file"] = name
    (folder / "transform.json").write_text(json.dumps(meta))
    with pytest.raises(DamagedFile, match="A file of a transform must lie in its folder. Received: "):
        FeatureTransform.load(folder)


# fault 27
def test_what_is_not_the_transforms_stays(folder):
    (folder / "m.keras").write_text("years")
    with pytest.raises(ValueError, match="with 1 other files: m.keras"):
        FeatureTransform.load(folder).save(folder)
    assert (folder / "m.keras").read_text() == "years"
