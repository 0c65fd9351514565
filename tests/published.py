"""Small files in the formats in which data sets are published, and the folders that they lie in."""

import gzip
import json
import zipfile

import numpy as np


def lines(rows, separator, header=None, encoding="utf-8"):
    """Rows as the lines of a file."""
    every = [header, *rows] if header else rows
    return "".join(separator.join(map(str, row)) + "\n" for row in every).encode(encoding)


def write(folder, files):
    """Files by name: bytes, packed where the name ends with .gz."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pairs(users, items, count, seed=0):
    """Different pairs of a user from 1 and an item from 1, in the users' order."""
    drawn = np.random.default_rng(seed).choice(users * items, count, replace=False)
    return [(int(pair) // items + 1, int(pair) % items + 1) for pair in np.sort(drawn)]


def rows_of(data):
    """All raw rows."""
    import pandas as pd

    return pd.concat([split.raw for split in data.splits.values()], ignore_index=True)


def check_whole(data, users, items, time=None):
    """What holds of every data set that keeps its rows: arrays and rows agree, and no pair is in two splits."""
    parts = {name: split.raw for name, split in data.splits.items()}
    for name, raw in parts.items():
        split = data.splits[name]
        assert len(raw) == len(split) > 0
        assert list(raw.index) == list(range(len(raw)))
        for task in data.tasks:
            label = split.labels[task.name]
            assert label.dtype == np.float32 and len(label) == len(raw)
        table = data.table(name)
        assert len(table) == len(raw) and set(table.columns) >= {feature.source for feature in data.features}
    if time is not None:
        assert parts["train"][time].max() <= parts["validation"][time].min()
        assert parts["validation"][time].max() <= parts["test"][time].min()
    keys = {name: set(zip(raw[users], raw[items], strict=True)) for name, raw in parts.items()}
    assert not keys["validation"] & keys["test"]
    return keys


def check_same(one, other):
    """The same arrays, bit for bit."""
    for name, split in one.splits.items():
        for part in ("inputs", "labels"):
            arrays, others = getattr(split, part), getattr(other.splits[name], part)
            assert arrays.keys() == others.keys()
            for key, array in arrays.items():
                np.testing.assert_array_equal(array, others[key])
