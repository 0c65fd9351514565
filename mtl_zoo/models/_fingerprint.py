"""What the data and the batches of a run are known by, so that a run does not go on with others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mtl_zoo.features._balanced import BalancedStream
from mtl_zoo.features._joint import JointStream
from mtl_zoo.features.streaming import TableStream

# Rows of the sample, evenly spaced from the first to the last.
_SAMPLE_ROWS = 256


def fingerprint(x: Any, y: Any, sample_weight: Any, batch_size: int, shuffle: Any) -> dict[str, Any]:
    """Plain values, which an error can show. A `tf.data.Dataset` is not looked into: that would be an epoch of it."""
    if isinstance(x, TableStream | JointStream | BalancedStream):
        return {**x.known_by(), "batch_size": batch_size, "shuffle": bool(shuffle)}
    if not isinstance(x, Mapping | pd.DataFrame | pa.Table):
        return {"batches": int(x.cardinality()), "batch_spec": str(x.element_spec)}
    rows, names = _size(x)
    return {
        "rows": rows,
        "columns": names,
        "batch_size": batch_size,
        "shuffle": bool(shuffle),
        "sample": rows_digest(x, y, sample_weight),
    }


def rows_digest(*parts: Any) -> str:
    """What arrays or a table are known by: a hash of some of their rows, evenly spaced."""
    rows, _ = _size(parts[0])
    at = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, _SAMPLE_ROWS)).astype(np.int64))
    digest = hashlib.sha256()
    for part in parts:
        for name, values in _sample(part, at):
            digest.update(f"{name}:{values!r};".encode(errors="replace"))
    return digest.hexdigest()[:16]


def _size(x: Any) -> tuple[int, list[str]]:
    if isinstance(x, pa.Table):
        return x.num_rows, sorted(x.column_names)
    names = sorted(str(name) for name in x)
    if isinstance(x, pd.DataFrame):
        return len(x), names
    return len(np.atleast_1d(np.asarray(next(iter(x.values()))))) if x else 0, names


def _sample(part: Any, at: np.ndarray) -> list[tuple[str, Any]]:
    """Names and values of some rows, in the order of the names."""
    if part is None:
        return []
    if isinstance(part, pa.Table):
        columns = part.take(pa.array(at)).to_pydict()
    elif isinstance(part, pd.DataFrame):
        columns = {str(name): column.iloc[at].tolist() for name, column in part.items()}
    else:
        given = part if isinstance(part, Mapping) else {"": part}
        # Arrays of other lengths are refused later, by name.
        columns = {str(name): _rows(np.asarray(values), at) for name, values in given.items()}
    return sorted(columns.items())


def _rows(values: np.ndarray, at: np.ndarray) -> list[Any]:
    return values[at[at < len(values)]].tolist() if values.ndim else [values.item()]
