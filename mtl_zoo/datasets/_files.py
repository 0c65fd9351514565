"""Where data sets lie on disk, and reading them: plain or .gz, under the shared or the official layout."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any


@dataclasses.dataclass(frozen=True)
class Resource:
    """A file that `fetch` downloads, and unpacks if it is an archive.

    Args:
        url: Where it lies.
        filename: Its name in the data set's folder.
        sha256, md5, size: What it must have, where known.
        unpack: It is a .zip or .tar.gz whose members belong into the folder; it is deleted afterwards.
    """

    url: str
    filename: str
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    unpack: bool = False


def cache_folder() -> Path:
    """Where `fetch` puts data when no folder is named: `$XDG_CACHE_HOME/mtl_zoo`, else `~/.cache/mtl_zoo`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "mtl_zoo"


def search_roots(data_dir: str | Path | None = None) -> list[Path]:
    """Folders that are searched for data sets: `data_dir` alone, else `$MTL_ZOO_DATA` (if set) and the cache folder.

    Example:

    >>> from mtl_zoo.datasets import search_roots
    >>> [path.name for path in search_roots("my_data")]
    ['my_data']
    """
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    named = os.environ.get("MTL_ZOO_DATA")
    return [*([Path(named).expanduser()] if named else []), cache_folder()]


def find_file(roots: Sequence[Path], folders: Iterable[str], names: str | Iterable[str]) -> Path | None:
    """The first of `names`, plain or with .gz, in the first of `folders` that holds one; "" is the root itself."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for root in roots:
        for folder in folders:
            for name in names:
                for candidate in (root / folder / name, root / folder / f"{name}.gz"):
                    if candidate.is_file():
                        return candidate
    return None


def missing_files(name: str, roots: Sequence[Path], folder: str, files: Iterable[str], hint: str = "") -> Exception:
    """The error for files that are not there."""
    searched = " and ".join(str(root / folder) for root in roots)
    return FileNotFoundError(
        f"`data_dir` must hold the files of {name!r}. Searched: {searched}. Expected: {', '.join(files)} "
        f"(each plain or .gz). {hint}Get them with: mtl-zoo data fetch {name}"
    )


def require_file(
    name: str, roots: Sequence[Path], folders: Sequence[str], names: str | Iterable[str], hint: str = ""
) -> Path:
    found = find_file(roots, folders, names)
    if found is None:
        expected = (names,) if isinstance(names, str) else tuple(names)
        raise missing_files(name, roots, folders[0], [" or ".join(expected)], hint)
    return found


def read_content(
    name: str, roots: Sequence[Path], folders: Sequence[str], file: str, archive: str | None = None
) -> bytes | None:
    """The content of a data set's file, plain or .gz, or as a member of a .zip; None where there is neither.

    Args:
        name: The data set.
        roots, folders: Where it may lie.
        file: The file's name, of which a member has the last part.
        archive: The .zip's name.

    Raises:
        ValueError: The file or the archive is damaged.
    """
    found = find_file(roots, folders, file)
    if found is not None:
        return read_bytes(found)
    packed = None if archive is None else find_file(roots, folders, archive)
    if packed is None:
        return None
    try:
        with zipfile.ZipFile(packed) as opened:
            members = [member for member in opened.namelist() if member.rpartition("/")[2] == Path(file).name]
            return opened.read(members[0]) if members else None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"`{packed.name}` must be a whole .zip. Received: {packed} ({error})") from error


def require_contents(
    name: str, roots: Sequence[Path], folders: Sequence[str], files: Sequence[str], archive: str | None = None
) -> dict[str, bytes]:
    """The contents of all `files` by name, or one error that names those that are not there."""
    found = {file: read_content(name, roots, folders, file, archive) for file in files}
    absent = [file for file, content in found.items() if content is None]
    if absent:
        raise missing_files(name, roots, folders[0], absent)
    return {file: content for file, content in found.items() if content is not None}


def open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def read_bytes(path: Path) -> bytes:
    """The content, unpacked; a truncated or damaged .gz is an error that names the file."""
    try:
        with open_bytes(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"`{path.name}` must be a whole file. Received: {path}, which breaks off ({error})") from error


def content_version(*contents: bytes) -> str:
    """Version of a data set: a hash of its files' content, the same for the plain and the .gz form."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def quick_version(paths: Iterable[Path], edge: int = 1 << 20) -> str:
    """Version of files too large to hash on every load: their sizes, first and last megabyte."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with open(path, "rb") as file:
            digest.update(file.read(edge))
            file.seek(max(0, size - edge))
            digest.update(file.read(edge))
    return digest.hexdigest()[:12]


def check_count(what: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise ValueError(
            f"`{what}` must be that of the official files. Received: {found}. Expected: {expected}. "
            "The file is another version, incomplete or altered; fetch it again."
        )
