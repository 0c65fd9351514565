"""Vectors of texts on disk: parts that are written whole and never changed, mapped into memory, shared by processes.

A part is one file: a header, an index of (hash of the text, checksum of its vector), and a float32 matrix. It takes its
place in one step, so that whoever is killed leaves no half of one; a vector whose checksum is wrong counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_zoo._files import remove_leftovers, whole_file

_log = logging.getLogger(__name__)

_MAGIC = b"MTLZVEC1"
_HEADER = np.dtype([("magic", "S8"), ("rows", "<u8"), ("width", "<u8"), ("checksum", "<u8")])
_ENTRY = np.dtype([("low", "<u8"), ("high", "<u8"), ("checksum", "<u8")])
_SUFFIX = ".vectors"
ABOUT = "about.json"


def default_cache() -> Path:
    """`$MTL_ZOO_CACHE`, or `mtl_zoo` within the user's folder of caches, and `vectors` in it."""
    given = os.environ.get("MTL_ZOO_CACHE")
    if given:
        return Path(given) / "vectors"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtl_zoo" / "vectors"


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """(texts, 2) hashes of 64 bits each."""
    digests = b"".join(hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=16).digest() for t in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


class VectorStore:
    """The vectors of one model, tokenizer and way of pooling.

    Args:
        folder: Where its parts lie; None keeps them in memory.
        width: Of a vector.
        about: What they are vectors of, for whoever looks into the folder.
    """

    def __init__(self, folder: Path | None, width: int, about: Mapping[str, Any]) -> None:
        self.folder, self.width = folder, width
        self._parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._order: list[str] = []
        self._lock = threading.RLock()
        self._index: tuple[np.ndarray, ...] = ()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder, r"[0-9a-f]{32}\.vectors")
            if not (folder / ABOUT).exists():
                with whole_file(folder / ABOUT) as part:
                    part.write_text(json.dumps(dict(about), indent=1), encoding="utf-8")
        self.refresh()

    def refresh(self) -> None:
        """Looks for parts that others have written meanwhile."""
        with self._lock:
            names = [] if self.folder is None else sorted(p.name for p in self.folder.glob(f"*{_SUFFIX}"))
            new = [name for name in names if name not in self._parts and not name.startswith(".")]
            for name in new:
                part = self._open(name)
                if part is not None:
                    self._parts[name] = part
            if new or not self._index:
                self._rebuild()

    def _open(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        path = self.folder / name  # type: ignore[operator]
        try:
            header = np.fromfile(path, _HEADER, count=1)[0]
            rows = int(header["rows"])
            index = np.fromfile(path, _ENTRY, count=rows, offset=_HEADER.itemsize)
            start = _HEADER.itemsize + index.nbytes
            whole = path.stat().st_size == start + 4 * rows * self.width and len(index) == rows
            if header["magic"] != _MAGIC or header["width"] != self.width or not whole:
                raise ValueError("its size or header is wrong")
            if header["checksum"] != zlib.crc32(index.tobytes()):
                raise ValueError("its index is damaged")
            return index, np.memmap(path, "<f4", "r", offset=start, shape=(rows, self.width))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, IndexError, OverflowError) as error:
            _log.warning("%s is left out, and its texts are encoded again: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def _rebuild(self) -> None:
        self._order = list(self._parts)
        entries = [self._parts[name][0] for name in self._order]
        index = np.concatenate(entries) if entries else np.empty(0, _ENTRY)
        part = np.repeat(np.arange(len(entries)), [len(e) for e in entries])
        row = np.concatenate([np.arange(len(e)) for e in entries]) if entries else np.empty(0, np.int64)
        order = np.argsort(index["low"], kind="stable")
        self._index = (index["low"][order], index["high"][order], index["checksum"][order], part[order], row[order])

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(texts, width) vectors of the keys, and whether each is there; those that are not are zeros."""
        with self._lock:
            low, high, checksum, part, row = self._index
            matrices = [self._parts[name][1] for name in self._order]
        vectors = np.zeros((len(keys), self.width), dtype=np.float32)
        at = np.minimum(np.searchsorted(low, keys[:, 0]), max(len(low) - 1, 0))
        if not len(low):
            return vectors, np.zeros(len(keys), dtype=bool)
        there = (low[at] == keys[:, 0]) & (high[at] == keys[:, 1])
        for number in np.unique(part[at[there]]):
            rows = np.flatnonzero(there & (part[at] == number))
            vectors[rows] = matrices[number][row[at[rows]]]
        for i in np.flatnonzero(there):
            there[i] = zlib.crc32(vectors[i].tobytes()) == checksum[at[i]]
        vectors[~there] = 0
        return vectors, there

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Writes vectors of new keys."""
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        index = np.empty(len(keys), _ENTRY)
        index["low"], index["high"] = keys[:, 0], keys[:, 1]
        index["checksum"] = [zlib.crc32(row.tobytes()) for row in vectors]
        name = f"{uuid.uuid4().hex}{_SUFFIX}"
        if self.folder is None:
            with self._lock:
                self._parts[name] = (index, vectors)
                self._rebuild()
            return
        header = np.array([(_MAGIC, len(keys), self.width, zlib.crc32(index.tobytes()))], _HEADER)
        with whole_file(self.folder / name) as part, open(part, "wb") as file:
            for piece in (header, index, vectors):
                file.write(piece.tobytes())
        self.refresh()
