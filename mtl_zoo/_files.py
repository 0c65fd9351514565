"""Files and folders that are written whole or not at all, and metadata that is read with care.

A file or folder is written beside its place, under a name with `.part` in it, and then takes its place in one step:
whoever is killed at any moment leaves the old content or the new one. A writer holds a lock on its part, so that the
next writer can tell what a dead one left behind, and removes it.

In each folder a file lists what was written there (`LISTING`). Whatever else lies in it belongs to someone else: the
folder is not replaced, and nothing of theirs is deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

LISTING = ".mtl_zoo.json"
# What version 0.1.0 wrote beside each marker, which had no listing.
_FILES_OF_0_1_0 = {
    "transform.json": r"vocabulary_\d+\.parquet|pretrained_\d+\.npy",
    "cache.json": r"\d+\.bin",
    "saved_model.pb": r"fingerprint\.pb|keras_metadata\.pb|variables(/variables\.[\w.-]+)?|assets(/.+)?",
}
_RANDOM = "[0-9a-f]{8}"
# Of `renameat2` in Linux.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# How often another process may change the folder between two steps of ours.
_TRIES = 100


class DamagedFile(ValueError):
    """A file that was changed, cut short, or never was what it should be."""


# Writing.


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a new, empty file to write to. It takes the place of `path` when the block ends well.

    Its name ends as that of `path` does. The content is on the disk before the name is. A link is followed: what it
    leads to is replaced.
    """
    place = Path(os.path.realpath(path))
    remove_leftovers(place.parent, re.escape(place.name))
    part, lock = _locked_part(place, is_folder=False)
    try:
        yield part
        if place.exists():
            shutil.copymode(place, part)
        _sync(part)
        os.replace(part, place)
        _sync(place.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
        os.close(lock)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends well.

    Of the old content is deleted what was written this way. Ask `refuse_other_content` first. A link is followed.
    """
    place = Path(os.path.realpath(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place.parent, re.escape(place.name))
    part, lock = _locked_part(place, is_folder=True)
    try:
        # An incomplete folder is recognised by a listing that says nothing.
        (part / LISTING).write_text(json.dumps({"files": None}), encoding="utf-8")
        yield part
        content = sorted(_content(part))
        (part / LISTING).write_text(json.dumps({"files": content}, indent=1), encoding="utf-8")
        for name in content:
            _sync(part / name)
        _sync(part / LISTING)
        _sync(part)
        _take_place(part, place)
        _sync(place.parent)
    finally:
        if part.exists() and _delete_own(part):
            _log.warning("%s holds files that another process put into %s meanwhile", part, place)
        os.close(lock)


def refuse_other_content(argument: str, folder: Path, marker: str, what: str) -> None:
    """Refuses a file, and a folder that holds anything but `what`, which is known by its file `marker`."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`{argument}` must be a folder, not a file. Received: {argument}={str(folder)!r}")
    others = sorted(_others(folder, marker))
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise ValueError(
            f"`{argument}` must be new, empty, or hold {what} and nothing else, since it is replaced. "
            f"Received: {argument}={str(folder)!r}, with {len(others)} other files: {shown}"
        )


def _others(folder: Path, marker: str | None = None) -> set[str]:
    """Names within a folder of what we did not write."""
    for _ in range(_TRIES):
        before = _identity(folder)
        if before is None:
            return set()
        found = _content(folder) - _own(folder, marker)
        # Another process may have put a new folder there while this one was looked through.
        if _identity(folder) == before:
            return found
    raise OSError(errno.EBUSY, "other processes keep writing this folder", str(folder))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _content(folder: Path) -> set[str]:
    """Names of all files and folders within, the listing aside."""
    found = set()
    for root, folders, files in os.walk(folder):
        found |= {Path(root, name).relative_to(folder).as_posix() for name in (*folders, *files)}
    return found - {LISTING}


def _own(folder: Path, marker: str | None = None) -> set[str]:
    """Names within a folder of what we wrote, whether or not it is still there."""
    with contextlib.suppress(FileNotFoundError, DamagedFile):
        files = read_json(folder / LISTING, "a listing", {"files": (list, type(None))})["files"]
        return _content(folder) if files is None else {name for name in files if isinstance(name, str)}
    for name, pattern in _FILES_OF_0_1_0.items():
        if marker in (None, name) and _is_marker(folder / name):
            return {name} | {file for file in _content(folder) if re.fullmatch(pattern, file)}
    return set()


def _is_marker(path: Path) -> bool:
    """Metadata that we wrote says its format; a SavedModel is TensorFlow's."""
    if path.suffix != ".json":
        return path.is_file()
    try:
        read_json(path, "metadata", {"format": int})
    except (FileNotFoundError, DamagedFile):
        return False
    return True


def _delete_own(folder: Path) -> bool:
    """Deletes what we wrote in a folder, and the folder, unless it holds anything else: then True, and it stays."""
    own = _own(folder)
    for root, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(root, name)
            if path.relative_to(folder).as_posix() in own:
                with contextlib.suppress(OSError):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    if _content(folder):
        return True
    # Last: without it the rest of a deletion that was cut short would seem to be someone else's.
    (folder / LISTING).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return False


def _locked_part(place: Path, is_folder: bool) -> tuple[Path, int]:
    """A new file or folder beside `place`, and the descriptor that holds its lock."""
    for _ in range(_TRIES):
        number = uuid.uuid4().hex[:8]
        # What a file's name ends in tells many a writer which format to write.
        part = place.with_name(f"{place.name}.{number}.part" if is_folder else f".{number}.part.{place.name}")
        part.mkdir() if is_folder else part.touch(exist_ok=False)
        # Until it is locked, another process may take it for a leftover and remove it.
        try:
            lock = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            continue
        # Some file systems know no locks; there, leftovers stay.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if part.exists():
            return part, lock
        os.close(lock)
    raise OSError(errno.EBUSY, "other processes keep removing what is written beside it", str(place))


def remove_leftovers(folder: Path, names: str) -> None:
    """Removes what writers of these names (a regular expression) left in a folder when they were killed."""
    of_folder = re.compile(f"(?P<name>{names})\\.{_RANDOM}\\.(part|old)")
    of_file = re.compile(f"\\.{_RANDOM}\\.part\\.({names})")
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = of_folder.fullmatch(path.name)
            if found and path.is_dir():
                _remove_leftover(path, folder / found["name"])
            elif of_file.fullmatch(path.name) and not path.is_dir():
                _remove_leftover(path, path)


def _remove_leftover(path: Path, place: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.is_dir():
                path.unlink()
            elif path.suffix == ".old" and not place.exists():
                os.rename(path, place)  # its writer was killed between two renamings
            elif not _others(path):
                _delete_own(path)
        finally:
            os.close(lock)


def _take_place(part: Path, folder: Path) -> None:
    """Puts `part` in the place of `folder`, whose old content is then in `part`, if there was any."""
    for _ in range(_TRIES):
        try:
            os.rename(part, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            shutil.copymode(folder, part)
            if _exchange(part, folder) or _exchange_in_two_steps(part, folder):
                return
        except FileNotFoundError:
            continue  # the folder has just been moved away or deleted
    raise OSError(errno.EBUSY, "other processes keep writing this folder", str(folder))


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _exchange_in_two_steps(one: Path, other: Path) -> bool:
    """For a moment there is nothing under the name `other`; the next writer mends what a kill then leaves."""
    old = one.with_suffix(".old")
    lock = os.open(other.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(other, old)
        try:
            os.rename(one, other)
        except OSError:
            os.rename(old, other)
            raise
        os.rename(old, one)
    finally:
        os.close(lock)
    return True


def _sync(path: Path) -> None:
    """Content, or the names in a folder, last when they have reached the disk; not every file system can be asked."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Reading.


def read_json(path: Path, what: str, keys: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The JSON object in a file that has these keys, with values of these types.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: It is no such object.
    """
    return parse_json(path.read_bytes(), path, what, keys)


def read_header(
    folder: Path, name: str, what: str, newest: int, keys: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """What says of a folder which format it has, and what else: `read_json` of a format that is known.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A newer version of mtl_zoo wrote it.
        DamagedFile: It is no such object.
    """
    if not (folder / name).exists():
        raise FileNotFoundError(f"`folder` must hold {what} ({name}). Received: folder={str(folder)!r}")
    header = read_json(folder / name, what, {"format": int})
    if header["format"] > newest:
        raise ValueError(
            f"`folder` holds {what} of format {header['format']}, written by a newer version of mtl_zoo; this one "
            f"reads up to format {newest}. Received: folder={str(folder)!r}. Upgrade mtl_zoo to read it."
        )
    return read_json(folder / name, what, keys)


def parse_json(data: bytes, path: Path, what: str, keys: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """`read_json` of bytes that come from within the file `path`."""
    with intact(path, what):
        content = json.loads(data)
        if not isinstance(content, dict):
            raise DamagedFile(_damaged(path, what, f"a JSON {type(content).__name__} and no object"))
    for key, kind in keys.items():
        if key not in content:
            raise DamagedFile(_damaged(path, what, f"it lacks {key!r}"))
        value = content[key]
        # A bool is an int for Python.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise DamagedFile(_damaged(path, what, f"its {key!r} is {str(value)[:80]!r}"))
    return content


@contextlib.contextmanager
def intact(path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong in the block while the content of `path` is understood becomes one named error."""
    try:
        yield
    except (DamagedFile, FileNotFoundError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise DamagedFile(_damaged(path, what, f"{type(error).__name__}: {str(error)[:300]}")) from error


def _damaged(path: Path, what: str, reason: str) -> str:
    return f"A file of {what} must be as it was written. Received: {str(path)!r}, which is damaged: {reason}"


def name_within(folder: Path, name: Any, what: str) -> Path:
    """The path of a file that metadata names: a plain name in its folder, and no way out of it."""
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", "..") or "\0" in name:
        raise DamagedFile(
            f"A file of {what} must lie in its folder. Received: {str(name)[:200]!r}, named in {str(folder)!r}"
        )
    return folder / name
