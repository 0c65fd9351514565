"""Encoded data on disk: what was written is what is mapped, whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest

from mtl_zoo import BinaryTask, Categorical, FeatureTransform, Numeric
from mtl_zoo._files import DamagedFile
from mtl_zoo.datasets import Split
from mtl_zoo.features import make_batches
from mtl_zoo.features.cache import HEADER, open_cache, write_cache
from mtl_zoo.features.streaming import TableStream

INPUTS = {
    "b": np.arange(10, dtype="int32"),
    "a": np.arange(10, 20, dtype="int32"),
    "s": np.arange(30, dtype="int32").reshape(10, 3),
    "x": np.linspace(0, 1, 10).astype("float32"),
}
LABELS = {"y": np.array([0, 1, np.nan] + [1] * 7, "float32")}
WEIGHTS = np.arange(10, dtype="float32")


def assert_same(cached, inputs=INPUTS, labels=LABELS, weights=WEIGHTS):
    for name, array in inputs.items():
        assert isinstance(cached.inputs[name], np.memmap) and cached.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(cached.inputs[name], array)
    for name, array in labels.items():
        np.testing.assert_array_equal(cached.labels[name], array)
    np.testing.assert_array_equal(cached.weights, weights)


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, LABELS, WEIGHTS),
        make_batches(INPUTS, LABELS, WEIGHTS, batch_size=4),
        Split(INPUTS, LABELS, WEIGHTS),
    ],
    ids=["arrays", "batches", "split"],
)
def test_round_trip(tmp_path, data):
    write_cache(data, tmp_path / "cache")
    cached = open_cache(tmp_path / "cache")
    assert len(cached) == 10
    assert_same(cached)
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_inputs_only_and_weights_by_task(tmp_path):
    write_cache(INPUTS, tmp_path / "x")
    assert open_cache(tmp_path / "x").labels is None and set(next(iter(open_cache(tmp_path / "x").batches()))) == set(
        INPUTS
    )
    write_cache((INPUTS, LABELS, {"y": WEIGHTS}), tmp_path / "w")
    np.testing.assert_array_equal(open_cache(tmp_path / "w").weights["y"], WEIGHTS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_those_from_memory(tmp_path, shuffle):
    write_cache((INPUTS, LABELS, WEIGHTS), tmp_path / "c")
    cached = open_cache(tmp_path / "c")
    ours = cached.batches(4, shuffle=shuffle, seed=1)
    theirs = make_batches(INPUTS, LABELS, WEIGHTS, batch_size=4, shuffle=shuffle, seed=1)
    some = make_batches({"x": cached.inputs["x"], "b": cached.inputs["b"]}, batch_size=4, shuffle=shuffle, seed=1)
    for one, other, part in zip(ours, theirs, some, strict=True):
        for name in INPUTS:
            np.testing.assert_array_equal(one[0][name], other[0][name])
        np.testing.assert_array_equal(one[1]["y"], other[1]["y"])
        np.testing.assert_array_equal(one[2], other[2])
        np.testing.assert_array_equal(part["x"], other[0]["x"])
        np.testing.assert_array_equal(part["b"], other[0]["b"])


def test_from_a_stream_with_the_hash_of_its_transform(tmp_path):
    table = pd.DataFrame({"city": ["Rome", "Oslo"] * 5, "age": np.arange(10.0), "click": [0, 1] * 5})
    table.to_parquet(tmp_path / "t.parquet", row_group_size=3)
    features = (Categorical("city"), Numeric("age"))
    transform = FeatureTransform(features, BinaryTask("click")).fit(table)
    write_cache(TableStream(tmp_path / "t.parquet", transform).batches(4), tmp_path / "c", transform=transform)
    transform.save(tmp_path / "transform")
    cached = open_cache(tmp_path / "c", transform=FeatureTransform.load(tmp_path / "transform"))
    for name, array in transform.encode(table).items():
        np.testing.assert_array_equal(cached.inputs[name], array)
    other = FeatureTransform(features, BinaryTask("click")).fit(table.iloc[:3])
    with pytest.raises(ValueError, match="`transform` must be the one that encoded the data. Received: another one"):
        open_cache(tmp_path / "c", transform=other)


def test_a_failed_write_leaves_the_old_cache(tmp_path):
    write_cache((INPUTS, LABELS, WEIGHTS), tmp_path / "c")

    def batches():
        yield {"x": np.zeros(3)}
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_cache(batches(), tmp_path / "c")
    assert_same(open_cache(tmp_path / "c"))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    write_cache({"x": np.zeros(3)}, tmp_path / "c")
    assert len(open_cache(tmp_path / "c")) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "`data` must have at least one row. Received: none"),
        ([{"x": np.zeros(0)}], "`data` must have at least one row. Received: none"),
        ({"t": np.array(["a"], dtype=object)}, "`inputs.t` must hold numbers to be cached. Received: dtype object"),
        ([{"x": np.zeros(2)}, {"z": np.zeros(2)}], "must have batches that are alike. .*inputs.x.*then .*inputs.z"),
        ([{"x": np.zeros(2)}, {"x": np.zeros((2, 1))}], r"must have batches that are alike. .*float64\(1,\)"),
        (
            {"x": np.zeros(2), "z": np.zeros(3)},
            r"`data` must have arrays with the same number of rows. Received: \{2, 3\}",
        ),
        ([3], "`data` must be batches of inputs, .* Received: a batch of type int"),
    ],
)
def test_refuses_data(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        write_cache(data, tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_refuses_folders(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`folder` must be a folder, not a file. Received: folder="):
        write_cache(INPUTS, tmp_path / "file")
    with pytest.raises(ValueError, match="`folder` must be new, empty, or hold a cache and nothing.*: file"):
        write_cache(INPUTS, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold a cache \(cache.json\). Received: folder="):
        open_cache(tmp_path)


def test_damage_is_found(tmp_path):
    folder = tmp_path / "c"
    write_cache((INPUTS, LABELS, WEIGHTS), folder)
    path = folder / "0.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        ValueError, match=rf"must hold whole files. Received: '.*0.bin' of {len(whole) - 1} bytes. Expec"
    ):
        open_cache(folder)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match="`folder` must hold all files of the cache. Received: without '.*0.bin'"
    ):
        open_cache(folder)
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, "format": 2}))
    with pytest.raises(ValueError, match="holds a cache of format 2, written by a newer version of mtl_zoo"):
        open_cache(folder)


def change(header, *path_and_value):
    *path, key, value = path_and_value
    for name in path:
        header = header[name]
    if value is None:
        del header[key]
    else:
        header[key] = value


# fault 32
@pytest.mark.parametrize(
    "changes",
    [
        *[
            ("groups", 0, "dtype", dtype)
            for dtype in ("|O", "O", "V8", "<M8[s]", "U2", "nonsense", "i4,O", "(2,)i4", 3)
        ],
        *[("groups", 0, "file", name) for name in ("../other.bin", "/etc/passwd", "", 3, "a/0.bin")],
        *[("groups", 0, "shape", shape) for shape in ([-1], ["3"], 3, [1.5], [2**70], [True])],
        *[("groups", 0, "columns", columns) for columns in ([["dict", "a"]], [["inputs"]], [[]], 3, [["inputs", 3]])],
        *[("groups", 0, key, None) for key in ("dtype", "file", "shape", "columns")],
        *[("rows", rows) for rows in (-1, 2**62, "10", True, None)],
        *[("groups", groups) for groups in ({}, [3], None)],
        *[("format", number) for number in ("1", 1.5, None)],
        ("transform", 3),
    ],
)
def test_a_hostile_header_is_one_named_error(tmp_path, changes):
    """None of these is read as numbers, leads out of the folder, or ends the process."""
    write_cache((INPUTS, LABELS, WEIGHTS), tmp_path / "c")
    (tmp_path / "other.bin").write_bytes((tmp_path / "c" / "0.bin").read_bytes())
    header = json.loads((tmp_path / "c" / HEADER).read_text())
    change(header, *changes)
    (tmp_path / "c" / HEADER).write_text(json.dumps(header))
    with pytest.raises(DamagedFile, match=r"Received: '.*|named in"):
        open_cache(tmp_path / "c")


# fault 27
def test_what_is_not_the_caches_stays(tmp_path):
    write_cache(INPUTS, tmp_path / "c")
    (tmp_path / "c" / "model.keras").write_text("years")
    with pytest.raises(ValueError, match="with 1 other files: model.keras"):
        write_cache(INPUTS, tmp_path / "c")
    assert len(open_cache(tmp_path / "c")) == 10
