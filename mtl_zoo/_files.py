"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def refuse_other_content(argument: str, folder: Path, marker: str, what: str) -> None:
    """Refuses a file, and a folder that holds anything but `what`, which is known by its file `marker`."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`{argument}` must be a folder, not a file. Received: {argument}={str(folder)!r}")
    if folder.exists() and any(folder.iterdir()) and not (folder / marker).exists():
        raise ValueError(f"`{argument}` must be new, empty, or hold {what}. Received: {argument}={str(folder)!r}")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a new file to write to, which ends as `path` does. It takes its place when the block ends well."""
    place = Path(os.path.realpath(path))
    part = place.with_name(f"{uuid.uuid4().hex[:8]}.part.{place.name}")
    try:
        yield part
        if place.exists():
            shutil.copymode(place, part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into. It takes the place of `folder`, old content and all, when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        _replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(part: Path, folder: Path) -> None:
    """`folder` keeps its old content until the new one is in its place."""
    old = part.with_suffix(".old")
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(part, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
