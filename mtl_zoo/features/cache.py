"""Encoded data on disk, in a form that is mapped into memory and read where it lies."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mtl_zoo._files import DamagedFile, intact, name_within, read_header, refuse_other_content, whole_folder
from mtl_zoo.features.batching import Layout, Rows, as_parts
from mtl_zoo.features.transform import FeatureTransform

FORMAT = 1
HEADER = "cache.json"
_PARTS = ("inputs", "labels", "weights")
_WHAT = "a cache"
_KEYS: dict[str, Any] = {"rows": int, "groups": list, "transform": (str, type(None))}


@dataclasses.dataclass(frozen=True)
class CachedTable(Rows):
    """Encoded rows that `open_cache` maps into memory: read from disk as they are used, and not held.

    Args:
        inputs, labels, weights: As `FeatureTransform` encodes them, as read-only `np.memmap` arrays; None where the
            cache has none.
        transform_hash: `transform_hash` of the transform that encoded them, if it was given.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, FeatureTransform, Numeric
    >>> from mtl_zoo.features import open_cache, write_cache
    >>> table = pd.DataFrame({"price": [1.0, 2.0, 3.0], "click": [0, 1, 0]})
    >>> transform = FeatureTransform([Numeric("price")], BinaryTask("click")).fit(table)
    >>> write_cache(transform.batches(table, 2), "cached", transform=transform)
    >>> open_cache("cached").labels["click"].tolist()
    [0.0, 1.0, 0.0]
    """

    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray] | None = None
    weights: np.ndarray | dict[str, np.ndarray] | None = None
    transform_hash: str | None = None


def write_cache(data: Any, folder: str | os.PathLike, *, transform: FeatureTransform | None = None) -> None:
    """Writes encoded data to a folder, whole or not at all.

    Args:
        data: Batches of `inputs`, `(inputs, labels)` or `(inputs, labels, weights)`, such as a `tf.data.Dataset` that
            is not shuffled or `TableStream.batches()`; or arrays in memory as one such tuple, or a split of a data set.
            Batches are written as they come, so the whole need not fit in memory.
        folder: New, empty, or one that holds a cache, which is then replaced.
        transform: The transform that encoded the data; `open_cache` can then tell whether it still is the one.

    Raises:
        ValueError: There is no row; a batch differs from the first in names, types or shapes; an array holds strings;
            the folder holds something else.

    Example:

    >>> import numpy as np
    >>> from mtl_zoo.features.cache import open_cache, write_cache
    >>> write_cache(({"x": np.arange(5), "z": np.arange(5)}, {"y": np.zeros(5)}), "encoded")
    >>> cached = open_cache("encoded")
    >>> len(cached), cached.inputs["x"].tolist()
    (5, [0, 1, 2, 3, 4])
    >>> [len(inputs["x"]) for inputs, labels in cached.batches(batch_size=2, shuffle=True)]
    [2, 2, 1]
    """
    folder = Path(folder).absolute()
    refuse_other_content("folder", folder, HEADER, "a cache")
    with whole_folder(folder) as part:
        header = _write_batches(_elements(data), part)
        header["transform"] = None if transform is None else transform_hash(transform)
        (part / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")


def _elements(data: Any) -> Iterator[list[Any]]:
    """Each batch as [inputs], [inputs, labels] or [inputs, labels, weights]."""
    if all(hasattr(data, name) for name in _PARTS):
        yield as_parts(data.inputs, data.labels or None, data.weights)
        return
    for element in [data] if isinstance(data, (tuple, Mapping)) else data:
        parts = (element,) if isinstance(element, Mapping) else element
        if not isinstance(parts, (tuple, list)) or not 1 <= len(parts) <= 3 or not isinstance(parts[0], Mapping):
            raise ValueError(
                "`data` must be batches of inputs, (inputs, labels) or (inputs, labels, weights), each a dict by name. "
                f"Received: a batch of type {type(element).__name__}"
            )
        yield as_parts(*parts)


def _write_batches(elements: Iterable[list[Any]], folder: Path) -> dict[str, Any]:
    """Writes each group of columns to a file of its own, and returns the header."""
    import tensorflow as tf

    layout: Layout | None = None
    names: list[list[str]] = []
    files: list[BinaryIO] = []
    rows = 0
    try:
        for parts in elements:
            arrays = [np.asarray(array) for array in tf.nest.flatten(parts)]
            specs = [(array.dtype, array.shape[1:]) for array in arrays]
            if layout is None:
                names = _names(parts)
                _refuse_strings(names, arrays)
                layout = Layout(parts, specs)
                files = [open(folder / f"{i}.bin", "wb") for i in range(len(layout.groups))]
            elif (_names(parts), specs) != (names, layout.specs):
                raise ValueError(
                    "`data` must have batches that are alike. Received: first "
                    f"{_shown(names, layout.specs)}, then {_shown(_names(parts), specs)}"
                )
            lengths = {len(array) for array in arrays}
            if len(lengths) > 1:
                raise ValueError(f"`data` must have arrays with the same number of rows. Received: {lengths}")
            for file, packed in zip(files, layout.pack(arrays), strict=True):
                np.ascontiguousarray(packed).tofile(file)
            rows += lengths.pop()
    finally:
        for file in files:
            file.close()
    if layout is None or not rows:
        raise ValueError("`data` must have at least one row. Received: none")
    groups = []
    for i, group in enumerate(layout.groups):
        dtype, shape = layout.matrix_spec(group)
        columns = [names[position] for position in group]
        groups.append(
            {"file": f"{i}.bin", "dtype": dtype.str, "shape": [int(s or 0) for s in shape], "columns": columns}
        )
    return {"format": FORMAT, "rows": rows, "groups": groups}


def _names(parts: list[Any]) -> list[list[str]]:
    """[part, name] of each leaf, in the order of `tf.nest.flatten`; one array of weights has no name."""
    found: list[list[str]] = []
    for part, content in zip(_PARTS, parts, strict=False):
        found += [[part, name] for name in sorted(content)] if isinstance(content, Mapping) else [[part]]
    return found


def _refuse_strings(names: list[list[str]], arrays: list[np.ndarray]) -> None:
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"`{'.'.join(name)}` must hold numbers to be cached. Received: dtype {array.dtype}. Read strings for "
                "an encoder from the table itself, for example by a TableStream, or make them ids (Categorical)."
            )


def _shown(names: list[list[str]], specs: Any) -> dict[str, str]:
    return {".".join(n): f"{dtype}{tuple(shape)}" for n, (dtype, shape) in zip(names, specs, strict=True)}


def open_cache(folder: str | os.PathLike, *, transform: FeatureTransform | None = None) -> CachedTable:
    """The data that `write_cache` wrote, mapped into memory and read-only.

    Args:
        folder: Where it was written.
        transform: Checked to be the transform that encoded the data.

    Raises:
        FileNotFoundError: There is no cache in the folder, or one of its files is gone.
        ValueError: A file is shorter or longer than the header says, or the header is damaged (`DamagedFile`); a newer
            version of mtl_zoo wrote it; another transform encoded the data.

    Example:

    >>> import pandas as pd
    >>> from mtl_zoo import BinaryTask, FeatureTransform, Numeric
    >>> from mtl_zoo.features import open_cache, write_cache
    >>> table = pd.DataFrame({"price": [1.0, 2.0, 3.0], "click": [0, 1, 0]})
    >>> transform = FeatureTransform([Numeric("price")], BinaryTask("click")).fit(table)
    >>> write_cache(transform.batches(table, 2), "encoded_rows", transform=transform)
    >>> open_cache("encoded_rows", transform=transform).inputs["price"].shape[0]
    3
    """
    folder = Path(folder)
    header = read_header(folder, HEADER, _WHAT, FORMAT, _KEYS)
    if transform is not None and header["transform"] != transform_hash(transform):
        raise ValueError(
            "`transform` must be the one that encoded the data. Received: another one than that of the cache in "
            f"{str(folder)!r}. Write the cache again."
        )
    with intact(folder / HEADER, _WHAT):
        groups = [_Group.of(folder, group, header["rows"]) for group in header["groups"]]
    found: dict[str, Any] = {}
    for group in groups:
        matrix = group.mapped()
        for position, (part, *name) in enumerate(group.columns):
            array = matrix if len(group.columns) == 1 else matrix[:, position]
            if name:
                found.setdefault(part, {})[name[0]] = array
            else:
                found[part] = array
    return CachedTable(**found, transform_hash=header["transform"])


@dataclasses.dataclass(frozen=True)
class _Group:
    """Columns of one type that lie side by side in a file."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    columns: list[list[str]]

    @classmethod
    def of(cls, folder: Path, entry: Mapping[str, Any], rows: int) -> _Group:
        """From what a header says, whoever wrote it."""
        dtype = np.dtype(str(entry["dtype"]))
        if dtype.kind not in "biuf" or dtype.hasobject:
            raise TypeError(f"dtype {entry['dtype']!r} is none of numbers")
        shape = (rows, *entry["shape"])
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"shape {shape!r} is none of an array")
        columns = entry["columns"]
        for part, *name in columns:
            if part not in _PARTS or len(name) > 1 or not all(isinstance(n, str) for n in name):
                raise ValueError(f"column {[part, *name]!r} is none of {_PARTS}")
            if not name and part != "weights":
                raise ValueError(f"a column of {part!r} has no name")
        if len(columns) > 1 and shape[1:] != (len(columns),):
            raise ValueError(f"{len(columns)} columns cannot have the shape {shape!r}")
        return cls(name_within(folder, entry["file"], _WHAT), dtype, shape, columns)

    def mapped(self) -> np.ndarray:
        if not self.path.is_file():
            raise FileNotFoundError(f"`folder` must hold all files of the cache. Received: without {str(self.path)!r}")
        expected, size = self.dtype.itemsize * math.prod(self.shape), self.path.stat().st_size
        if size != expected:
            raise DamagedFile(
                f"`folder` must hold whole files. Received: {str(self.path)!r} of {size} bytes. "
                f"Expected: {expected} bytes"
            )
        return np.memmap(self.path, self.dtype, mode="r", shape=self.shape)


def transform_hash(transform: FeatureTransform) -> str:
    """Hash of what decides the arrays that a transform gives: features, tasks, vocabularies, moments, weights."""
    facts = {"tasks": [task.arrays_config() for task in transform.tasks], "sample_weight": transform.sample_weight}
    return transform._require_fitted().hash_with(facts)
