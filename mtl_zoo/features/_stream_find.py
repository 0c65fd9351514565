"""Which files a stream reads, and what their names say."""

from __future__ import annotations

import glob
import os
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mtl_zoo import _validation as check

# By the suffix of a compressed file: pyarrow's name of the way it is compressed.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
SUFFIXES = (".parquet", ".pq", *(text + more for text in (".csv", ".tsv") for more in ("", *COMPRESSIONS)))
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def find_files(paths: Any) -> list[str]:
    """The files that a path, a folder, a glob or a list of these stands for."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise ValueError("`paths` must name at least one file. Received: paths=[]")
    files = [file for path in given for file in _expand(path)]
    repeated = check.duplicates([os.path.realpath(file) for file in files])
    if repeated:
        raise ValueError(f"`paths` must name each file once. Received twice: {check.sample_values(repeated)}")
    return files


def _expand(path: Any) -> list[str]:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`paths` must be paths of files or folders. Received: {path!r}")
    name = os.fspath(path)
    if os.path.isdir(name):
        given = [file for file in Path(name).rglob("*") if file.is_file() and not _is_hidden(file, Path(name))]
        found = sorted(str(file) for file in given if suffix_of(str(file)) in SUFFIXES)
        kinds = {suffix_of(file) for file in found}
        if not found:
            raise FileNotFoundError(f"`paths` must hold files {SUFFIXES}. Received: folder {name!r} without any")
        if len({is_parquet(kind) for kind in kinds}) > 1:
            raise ValueError(
                f"`paths` must say which files of a folder to read if it holds several kinds. Received: {name!r} "
                f"with {sorted(kinds)}. Use a glob, for example {os.path.join(name, '*' + min(kinds))!r}"
            )
        _tell_others(name, sorted({str(file) for file in given} - set(found)))
        return found
    if os.path.exists(name):
        found = [name]
    else:
        found = sorted(glob.glob(name, recursive=True))
        if not found:
            raise FileNotFoundError(f"`paths` must name files that exist. Received: {name!r}")
    for file in found:
        check.check_choice("suffix of " + file, suffix_of(file), SUFFIXES)
    return found


def _is_hidden(file: Path, folder: Path) -> bool:
    """Spark and others write side files whose names start so."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _tell_others(folder: str, others: list[str]) -> None:
    if others:
        shown = ", ".join(os.path.relpath(file, folder) for file in others[:5]) + (", ..." if len(others) > 5 else "")
        # Up to the call of the user's: `TableStream`, `find_files`, `_expand`.
        warnings.warn(
            f"{len(others)} files in {folder!r} are not read: {shown}. Files that are: {', '.join(SUFFIXES)}.",
            stacklevel=6,
        )


def suffix_of(path: str) -> str:
    """A file's suffix, with that of its compression: `.csv.gz`."""
    name = os.path.basename(path).lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), os.path.splitext(name)[1])


def is_parquet(suffix: str) -> bool:
    return suffix in (".parquet", ".pq")


def partitions_of(path: str) -> dict[str, str | None]:
    """Columns whose value for all rows of a file stands in its folders' names, as Hive and Spark write them."""
    pairs = [name.split("=", 1) for name in Path(path).parts[:-1] if "=" in name]
    return {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, value in pairs if key}
