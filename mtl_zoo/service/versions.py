"""Versions of a model in a folder: found when they are whole, loaded beside the one that answers, then switched."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_zoo.service import logs
from mtl_zoo.service.errors import RequestError, busy
from mtl_zoo.service.metrics import Metrics
from mtl_zoo.service.servables import Servable, kind_in, load_servable
from mtl_zoo.service.settings import Settings

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})\Z")


@dataclasses.dataclass(frozen=True)
class Found:
    """A version in the folder.

    Args:
        path: Where it is.
        content: What tells one content from another: names, sizes and times of all files.
        changed: When the last of them changed, in seconds since the epoch.
    """

    path: Path
    content: frozenset[tuple[str, int, int]]
    changed: float


@dataclasses.dataclass(eq=False)
class Version:
    """A version that was tried.

    Args:
        number: Its number.
        content: See `Found`.
        state: `LOADING`, `AVAILABLE`, `UNLOADING` or `END`, as TensorFlow Serving calls them.
        servable: If it is loaded.
        error: Why it is not.
    """

    number: int
    content: frozenset[tuple[str, int, int]]
    state: str = "LOADING"
    servable: Servable | None = None
    error: str = ""

    def status(self) -> dict[str, Any]:
        """As TensorFlow Serving's REST API tells it."""
        code = "UNKNOWN" if self.error else "OK"
        status = {"error_code": code, "error_message": self.error}
        return {"version": str(self.number), "state": self.state, "status": status}


def look(folder: Path) -> dict[int, Found]:
    """The versions of a folder by number; a folder (or file) that holds a model itself is version 1."""
    paths: dict[int, Path] = {}
    if folder.is_dir():
        for entry in folder.iterdir():
            if _NUMBER.match(entry.name) and entry.is_dir():
                paths[int(entry.name)] = entry
    if not paths and kind_in(folder) is not None:
        paths[1] = folder
    found = {}
    for number, path in paths.items():
        content, changed = _content(path)
        if content:
            found[number] = Found(path, content, changed)
    return found


def _content(path: Path) -> tuple[frozenset[tuple[str, int, int]], float]:
    entries, changed = set(), 0.0
    places = [path]
    for root, folders, files in os.walk(path):
        places += [Path(root, name) for name in (*folders, *files)]
    for place in places:
        try:
            status = place.stat()
        except OSError:
            continue  # moved away meanwhile
        # The time of the last change cannot be set by who copies files.
        changed = max(changed, status.st_ctime)
        if not place.is_dir():
            entries.add((str(place.relative_to(path)), status.st_size, status.st_mtime_ns))
    return frozenset(entries), changed


class Versions:
    """The versions that are loaded, and the one that answers.

    Args:
        folder: Where they are.
        settings: How often to look, and how many to keep.
        metrics: Told what happens.
        load: Loads and warms up what is at a path.
    """

    def __init__(
        self, folder: Path, settings: Settings, metrics: Metrics, load: Callable[[Path], Servable] = load_servable
    ):
        self.folder = folder
        self._settings, self._metrics, self._load = settings, metrics, load
        self._tried: dict[int, Version] = {}
        self._order: list[Version] = []  # those that are loaded; the last one answers
        self._missing_was_told = self._has_unloaded = False

    @property
    def current(self) -> Version | None:
        """The version that answers by default."""
        return self._order[-1] if self._order else None

    @property
    def failed(self) -> dict[str, str]:
        """Why versions are not served, by number."""
        return {str(v.number): v.error for v in self._tried.values() if v.error}

    @property
    def tried(self) -> list[Version]:
        """Every version that is loaded, or was to be, the newest first."""
        found = self._tried | {version.number: version for version in self._order}
        return sorted(found.values(), key=lambda version: -version.number)

    def get(self, number: str | None) -> tuple[int, Servable]:
        """A loaded version.

        Raises:
            RequestError: 404: it is not loaded. 503: none is, yet.
        """
        version = self.current
        if number is not None:
            loaded = {str(v.number): v for v in self._order}
            if number not in loaded:
                text = f"This version is not loaded. Expected: one of {sorted(loaded, key=int)}"
                raise RequestError(404, text, "unknown_version")
            version = loaded[number]
        if version is None or version.servable is None:
            raise busy(503, "No version is loaded yet.", "not_ready")
        return version.number, version.servable

    async def watch(self) -> None:
        """Looks at the folder for ever."""
        while True:
            try:
                await self.step()
            except Exception as error:  # the folder is gone for a moment, on a network
                logs.event("folder_unreadable", logging.WARNING, **logs.failure(error))
            await asyncio.sleep(self._settings.poll)

    async def step(self) -> bool:
        """Looks once, and loads one version if there is one to load; whether it did."""
        if self._has_unloaded:
            # Models are circles of references. By now requests that were read for the old one are mostly answered.
            self._has_unloaded = False
            await asyncio.to_thread(gc.collect)
        found = await asyncio.to_thread(look, self.folder)
        wanted = self._wanted(found)
        if wanted is None:
            if not self._order and not self._missing_was_told:
                logs.event("no_version", logging.WARNING, versions=sorted(found))
                self._missing_was_told = True
            self._forget(found)
            return False
        await self._try(wanted, found[wanted])
        return True

    def _wanted(self, found: dict[int, Found]) -> int | None:
        """The newest version that is whole and has not failed, unless it is the one that answers."""
        now, current = time.time(), self.current
        for number in sorted(found, reverse=True):
            candidate, tried = found[number], self._tried.get(number)
            is_same = tried is not None and tried.content == candidate.content
            if is_same and tried is current:
                return None
            # Nothing has changed for a while, by a clock that may differ from the disk's.
            is_whole = not 0 <= now - candidate.changed < self._settings.settle
            if is_whole and not (is_same and tried is not None and tried.error):
                return number
            if current is not None and number == current.number:
                return None  # its folder is being written anew, or what is there now has failed: it stays
        return None

    def _forget(self, found: dict[int, Found]) -> None:
        """Versions that failed, or ended, and are no longer there."""
        for number, version in list(self._tried.items()):
            if number not in found and version not in self._order:
                del self._tried[number]

    async def _try(self, number: int, found: Found) -> None:
        kept = next((v for v in self._order if v.number == number and v.content == found.content), None)
        if kept is not None:  # still loaded, and wanted again
            self._switch(kept, 0.0)
            return
        version, before = Version(number, found.content), self._tried.get(number)
        self._tried[number] = version
        logs.event("version_loading", version=number)
        started = time.monotonic()
        try:
            version.servable = await asyncio.to_thread(self._load, found.path)
        except Exception as error:
            version.state, version.error = "END", f"{type(error).__name__}: {str(error)[:1000]}"
            self._metrics.loads.labels("failed").inc()
            served = self.current.number if self.current else None
            logs.event("version_failed", logging.ERROR, version=number, served=served, why=version.error)
            if before is not None and before in self._order and before is not self.current:
                self._order.remove(before)
            return
        self._metrics.loads.labels("loaded").inc()
        self._switch(version, time.monotonic() - started)

    def _switch(self, version: Version, seconds: float) -> None:
        previous = self.current
        version.state = "AVAILABLE"
        self._order = [v for v in self._order if v is not version] + [version]
        self._tried[version.number] = version
        self._metrics.version.set(version.number)
        number = previous.number if previous else None
        logs.event("version_served", version=version.number, previous=number, seconds=round(seconds, 3))
        while len(self._order) > self._settings.keep:
            old = self._order.pop(0)
            # Requests that were read for it hold it until they are answered.
            old.state, old.servable, self._has_unloaded = "END", None, True
            if self._tried.get(old.number) is old:
                del self._tried[old.number]
            logs.event("version_unloaded", version=old.number)
