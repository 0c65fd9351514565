"""Files of an index: ids, vectors, and a checksum of each file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_zoo._files import DamagedFile, intact, name_within
from mtl_zoo.recommend.indexes._arrays import checked_ids

WHAT = "an index"
_VECTORS, _IDS = "vectors.npy", "ids.parquet"


def write_items(folder: Path, ids: np.ndarray, vectors: np.ndarray) -> list[str]:
    """Writes ids and vectors, and gives the names of the files."""
    np.save(folder / _VECTORS, vectors, allow_pickle=False)
    pq.write_table(pa.table({"id": pa.array(ids)}), folder / _IDS)
    return [_VECTORS, _IDS]


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuses files that are not as they were written, and names that lead out of the folder."""
    for name in (_VECTORS, _IDS, *digests):
        path = name_within(folder, name, WHAT)
        if not path.is_file() or digest(path) != digests.get(name):
            raise DamagedFile(
                f"A file of {WHAT} must be as it was written. Received: {str(path)!r}, which is missing, cut short or "
                "changed"
            )


def read_items(folder: Path, items: int, width: int) -> tuple[pd.Index, np.ndarray]:
    """Ids and vectors, of the numbers that the metadata names."""
    with intact(folder / _VECTORS, WHAT):
        vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
        if vectors.shape != (items, width) or vectors.dtype != np.float32:
            raise ValueError(f"it holds {vectors.dtype} of shape {vectors.shape}")
    with intact(folder / _IDS, WHAT):
        try:
            ids = pq.read_table(folder / _IDS)["id"].to_numpy()
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
        known = pd.Index(checked_ids(ids))
        if len(known) != items:
            raise ValueError(f"it holds {len(known)} ids of {items} items")
    return known, np.array(vectors)
