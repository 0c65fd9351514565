"""Explicit, resumable, verified downloads. Nothing else in the package touches the network.

Bytes go to `<name>.part` and become `<name>` in one rename, after size and checksum hold; so do an archive's
members.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mtl_zoo import _validation as check
from mtl_zoo.datasets._base import Check, DatasetInfo, dataset_info, verify_dataset
from mtl_zoo.datasets._files import Resource, search_roots

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
_CHUNK = 1 << 20


class FetchError(RuntimeError):
    """A data set could not be fetched; the message says what is left on disk and what to do.

    Example:

    >>> from mtl_zoo.datasets import FetchError, fetch_dataset
    >>> try:
    ...     fetch_dataset("ali_ccp", "data")
    ... except FetchError as error:
    ...     print("login" in str(error))
    True
    """


def fetch_dataset(
    name: str, data_dir: str | Path | None = None, *, force: bool = False, progress: Progress | None = None
) -> list[Check]:
    """Downloads a data set's official files and verifies them. Files that are there and whole are kept.

    Args:
        name: One of `list_datasets()`.
        data_dir: The data folder; the files go to the set's own folder in it. Default: `$MTL_ZOO_DATA`, else the cache.
        force: Download anew.
        progress: Called with (file name, bytes so far, bytes in all or None).

    Returns:
        What `verify_dataset` found; all hold.

    Raises:
        FetchError: The set is behind a login; the server failed; a checksum, size or count does not hold.
        OSError: The folder cannot be written to.

    Example:

    >>> from mtl_zoo.datasets import FetchError, fetch_dataset
    >>> try:  # this one is behind a login; `fetch_dataset("movielens_100k")` would download
    ...     fetch_dataset("ali_ccp", "data")
    ... except FetchError:
    ...     print("not fetched")
    not fetched
    """
    info = dataset_info(name)
    if not info.reads_files:
        return verify_dataset(name)
    root = search_roots(data_dir)[0]
    folder = root / info.folders[0]
    if info.login is not None:
        try:
            return _require_ok(info, folder, verify_dataset(name, root))
        except FileNotFoundError as error:
            raise FetchError(
                f"`fetch` cannot download {name!r}: it is behind a login. {info.login} "
                f"Put {', '.join(info.files)} into {folder}, then: mtl-zoo data verify {name}"
            ) from error
    if info.is_complete([root]) and not force:
        try:
            return _require_ok(info, folder, verify_dataset(name, root))
        except ValueError as error:
            logger.warning("%s does not hold and is fetched anew: %s", name, error)
    for resource in info.resources:
        fetch_resource(resource, folder, progress=progress)
    return _require_ok(info, folder, verify_dataset(name, root))


def _require_ok(info: DatasetInfo, folder: Path, checks: list[Check]) -> list[Check]:
    wrong = [c for c in checks if not c.ok]
    if wrong:
        raise ValueError(
            f"`{info.name}` must be the official files. Received in {folder}: "
            + "; ".join(f"{c.what} {c.found}, expected {c.expected}" for c in wrong)
        )
    return checks


def fetch_resource(resource: Resource, folder: Path, *, progress: Progress | None = None) -> Path:
    """Downloads one file into `folder`, and unpacks it if it is an archive. Returns the file, or the folder."""
    path = download(
        resource.url,
        folder / resource.filename,
        sha256=resource.sha256,
        md5=resource.md5,
        size=resource.size,
        progress=progress,
    )
    if not resource.unpack:
        return path
    unpack(path, folder)
    path.unlink()
    return folder


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    retries: int = 3,
    timeout: float = 30.0,
    progress: Progress | None = None,
) -> Path:
    """Downloads `url` to `path`. A broken download leaves `<path>.part`, and the next call goes on from there.

    Args:
        url: http(s) address.
        path: Where the file goes; only ever whole.
        sha256, md5, size: What it must have.
        retries: How often to try again when the connection breaks.
        timeout: Seconds without a byte until it counts as broken.
        progress: Called with (file name, bytes so far, bytes in all or None).

    Raises:
        FetchError: No answer, an HTTP error, a broken connection, a wrong checksum or size.
        OSError: The folder cannot be written to.
    """
    path = Path(path)
    check.check_int("retries", retries, minimum=0)
    check.check_choice("url scheme", urllib.parse.urlsplit(url).scheme, ("http", "https"))
    part = path.with_name(path.name + ".part")
    with _writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.open("ab").close()
    problem = ""
    for attempt in range(retries + 1):
        if attempt:
            logger.info("%s: %s; trying again (%d of %d)", url, problem, attempt, retries)
            time.sleep(min(0.2 * 2**attempt, 5.0))
        try:
            total = _transfer(url, part, timeout, progress)
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                problem = f"HTTP {error.code}"
                continue
            _drop_if_empty(part)
            raise FetchError(f"`url` must be there to download. Received: HTTP {error.code} from {url}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        have = part.stat().st_size
        if total is None or have >= total:
            break
        problem = f"the connection broke after {have:,} of {total:,} bytes"
    else:
        kept = _drop_if_empty(part)
        raise FetchError(
            f"`url` must answer in full. Received from {url}: {problem}. "
            f"{kept:,} bytes are kept in {part}; the same command goes on from there."
        )
    _check_content(part, url, sha256=sha256, md5=md5, size=size)
    os.replace(part, path)
    return path


def _drop_if_empty(part: Path) -> int:
    size = part.stat().st_size
    if not size:
        part.unlink()
    return size


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(f"`data_dir` must be a folder that can be written to. Received: {folder} ({error})") from error


def _transfer(url: str, part: Path, timeout: float, progress: Progress | None) -> int | None:
    """Appends what is missing of `url` to `part`; returns the size of the whole, if the server says."""
    have = part.stat().st_size
    request = urllib.request.Request(url, headers={"User-Agent": "mtl_zoo", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing is left after these bytes: either they are the whole file, or they belong to another one.
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == have:
            return have
        part.write_bytes(b"")
        return _transfer(url, part, timeout, progress)
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not resumed:
            have = 0  # the server sends everything again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if resumed else "wb", buffering=0) as file:
            # Short reads (read1), so that every byte that came before a break is kept.
            while chunk := response.read1(_CHUNK):
                with _writable(part.parent):
                    file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(part.name.removesuffix(".part"), have, total)
    return total


def _check_content(part: Path, url: str, **expected: Any) -> None:
    """Deletes a part that is not what it should be: to resume it would never help."""
    for kind, value in expected.items():
        if value is None:
            continue
        found = part.stat().st_size if kind == "size" else file_digest(part, kind)
        if found != value:
            part.unlink()
            raise FetchError(
                f"`{kind}` must be that of the official file. Received: {kind}={found} from {url}. Expected: {value}. "
                "Nothing was kept."
            )


def file_digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def unpack(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpacks a .zip, .tar or .tar.gz into `folder`, each file whole or not at all.

    It is unpacked beside its place first, and moved there file by file: nothing may leave the folder, and links and
    devices are refused.

    Returns:
        The files written.

    Raises:
        FetchError: A member is illegal, or the archive is damaged or encrypted; nothing was written.
        OSError: The folder cannot be written to.
    """
    archive, folder = Path(archive), Path(folder)
    is_new = not folder.exists()
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".unpack-", dir=folder))
    try:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    for member in opened.infolist():
                        kind = stat.S_IFMT(member.external_attr >> 16)
                        _check_member(member.filename, member.is_dir() or kind in (0, stat.S_IFREG), member.is_dir())
                    opened.extractall(part)
            else:
                with tarfile.open(archive) as opened_tar:
                    opened_tar.extractall(part, filter=_plain_member)
        except OSError as error:
            if error.errno is not None and not isinstance(error, gzip.BadGzipFile):
                raise  # of the disk, and not of the archive
            raise _damaged(archive, error) from error
        except (*_DAMAGED, RuntimeError) as error:  # zipfile's own word for an encrypted archive
            if isinstance(error, FetchError):
                raise
            raise _damaged(archive, error) from error
        return [_move(path, folder, path.relative_to(part)) for path in sorted(part.rglob("*")) if path.is_file()]
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError)


def _damaged(archive: Path, error: Exception) -> FetchError:
    return FetchError(f"`archive` must be a whole .zip or .tar.gz, not encrypted. Received: {archive} ({error})")


def _check_member(name: str, is_plain: bool, is_folder: bool) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    why = None
    if not is_plain:
        why = "a link or device"
    elif parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", name) or not (parts.parts or is_folder):
        why = "outside the folder"
    if why is not None:
        raise FetchError(f"`archive` may hold plain files below its folder only. Received: member {name!r}, {why}")


def _plain_member(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    _check_member(member.name, member.isreg() or member.isdir(), member.isdir())
    return tarfile.data_filter(member, path)


def _move(path: Path, folder: Path, name: Path) -> Path:
    target = folder / name
    # A link that lies in the folder already must not lead a member out of it either.
    if not target.resolve().is_relative_to(folder.resolve()):
        _check_member(f"../{name}", True, False)
    with _writable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    return target
