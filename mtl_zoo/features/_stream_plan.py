"""The order of an epoch, worked out from row counts alone: the same for one worker and for many."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Parts of files that are read in turns, so that rows of parts larger than the buffer still meet rows of others.
OPEN_PARTS = 4
MAX_PIECE_ROWS = 32_768


@dataclasses.dataclass(frozen=True)
class Slice:
    """Consecutive rows of a part of a file."""

    part: int
    start: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one thread reads and encodes at a time."""

    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.slices)


@dataclasses.dataclass(frozen=True)
class Window:
    """Pieces that are in memory together, and the seed that their rows are shuffled by."""

    pieces: tuple[Piece, ...]
    seed: tuple[int, ...] | None

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def destinations(self) -> list[np.ndarray | slice]:
        """For each piece, the rows of the window that its rows become."""
        ends = list(itertools.accumulate(piece.rows for piece in self.pieces))
        bounds = [slice(end - piece.rows, end) for piece, end in zip(self.pieces, ends, strict=True)]
        if self.seed is None:
            return list(bounds)
        order = np.random.default_rng(self.seed).permutation(self.rows)
        return [order[bound] for bound in bounds]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All windows of an epoch; the rows of the epoch are those of its windows, one after another."""

    windows: tuple[Window, ...]

    @property
    def rows(self) -> int:
        return sum(window.rows for window in self.windows)

    def find(self, row: int) -> tuple[int, int]:
        """The window that holds a row of the epoch, and the row's place in it."""
        ends = list(itertools.accumulate(window.rows for window in self.windows))
        index = bisect.bisect_right(ends, row)
        return index, row - (ends[index - 1] if index else 0)


def make_plan(part_rows: Sequence[int], window_rows: int, seed: tuple[int, int] | None) -> Plan:
    """The plan of an epoch.

    Args:
        part_rows: Rows of each part of each file.
        window_rows: The most rows of a window.
        seed: (seed, epoch) shuffles; None keeps the order of the files.
    """
    piece_rows = max(1, min(MAX_PIECE_ROWS, window_rows // 4))
    order = np.arange(len(part_rows)) if seed is None else np.random.default_rng(seed).permutation(len(part_rows))
    slices = _in_turns(part_rows, order.tolist(), piece_rows, 1 if seed is None else OPEN_PARTS)
    pieces = [Piece(group) for group in _grouped(slices, piece_rows)]
    groups = _grouped(pieces, window_rows)
    return Plan(tuple(Window(group, None if seed is None else (*seed, i)) for i, group in enumerate(groups, 1)))


def _in_turns(part_rows: Sequence[int], order: Sequence[int], piece_rows: int, num_open: int) -> Iterator[Slice]:
    """Slices of equal size of each part, from `num_open` parts in turn."""
    waiting = deque(deque(_slices(part, part_rows[part], piece_rows)) for part in order if part_rows[part])
    turn: deque[deque[Slice]] = deque()
    while waiting or turn:
        while waiting and len(turn) < num_open:
            turn.append(waiting.popleft())
        slices = turn.popleft()
        yield slices.popleft()
        if slices:
            turn.append(slices)


def _slices(part: int, rows: int, piece_rows: int) -> Iterator[Slice]:
    size = -(-rows // -(-rows // piece_rows))
    for start in range(0, rows, size):
        yield Slice(part, start, min(size, rows - start))


def _grouped(items: Any, most: int) -> Iterator[tuple]:
    """Consecutive items together, up to `most` rows."""
    group: list = []
    rows = 0
    for item in items:
        if group and rows + item.rows > most:
            yield tuple(group)
            group, rows = [], 0
        group.append(item)
        rows += item.rows
    if group:
        yield tuple(group)
