"""Reads the windows of a plan, one ahead of the consumer, with a few threads."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from mtl_zoo.features._stream_files import UNREADABLE, CorruptFile, Source
from mtl_zoo.features._stream_plan import MAX_PIECE_ROWS, Piece, Plan, Slice
from mtl_zoo.features.batching import Layout

# Table of a part -> the flattened arrays of its rows.
Encode = Callable[[pa.Table], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Part:
    """A row group of a Parquet file, or a block of a CSV file."""

    source: Source
    index: int
    first_row: int

    @property
    def rows(self) -> int:
        return self.source.rows[self.index]

    def __str__(self) -> str:
        last = self.first_row + self.rows - 1
        return f"{self.source.path!r}, {self.source.part_name} {self.index} (rows {self.first_row} to {last})"

    def corrupt(self, error: BaseException) -> CorruptFile:
        return CorruptFile(f"`paths` must hold files that can be read. Received: {self}, which cannot be: {error}")

    def check(self) -> None:
        """Reads everything and keeps nothing."""
        cursor = Cursor(self, 0)
        try:
            for start in range(0, self.rows, MAX_PIECE_ROWS):
                cursor.read(Slice(0, start, min(MAX_PIECE_ROWS, self.rows - start)))
        finally:
            cursor.close()


def parts_of(source: Source) -> list[Part]:
    starts = np.concatenate([[0], np.cumsum(source.rows)]).astype(int).tolist()
    return [Part(source, i, start) for i, start in enumerate(starts[:-1])]


class Cursor:
    """Where the reading of a part stands; its slices are read in order, by whichever thread.

    Args:
        part: What to read.
        start: The first row that is wanted.
    """

    def __init__(self, part: Part, start: int):
        self._part, self._position = part, start
        self._turn = threading.Condition()
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: list[pa.RecordBatch] = []
        self._skip, self._closed = start, False

    def read(self, piece: Slice) -> pa.Table:
        """The rows of a slice, once those before it have been read."""
        with self._turn:
            # Slices are handed to the threads in order, so the one before is done or being read: no deadlock.
            self._turn.wait_for(lambda: self._position == piece.start or self._closed)
            if self._closed:
                raise Stopped
            try:
                table = self._next(piece.rows)
            except UNREADABLE as error:
                self._closed = True
                raise self._part.corrupt(error) from error
            finally:
                self._position += piece.rows
                self._turn.notify_all()
            if self._position == self._part.rows:
                self._batches = None
            return table

    def _next(self, rows: int) -> pa.Table:
        if self._batches is None:
            self._batches = self._part.source.read(self._part.index, MAX_PIECE_ROWS)
            while self._skip:
                self._take(self._skip)
        found = []
        while rows:
            found.append(self._take(rows))
            rows -= len(found[-1])
        return pa.Table.from_batches(found)

    def _take(self, most: int) -> pa.RecordBatch:
        batch = self._rest.pop() if self._rest else next(self._batches or iter(()), None)
        if batch is None:
            raise pa.ArrowInvalid(f"it ends before its {self._part.rows} rows")
        if len(batch) > most:
            self._rest.append(batch.slice(most))
            batch = batch.slice(0, most)
        self._skip = max(0, self._skip - len(batch))
        return batch

    def stop(self) -> None:
        """Wakes the threads that wait for their turn."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def close(self) -> None:
        self._batches, self._rest = None, []


class Stopped(Exception):
    """The consumer is gone, or another slice of the part could not be read."""


class WindowReader:
    """The windows of a plan as packed arrays, in the same order whatever the number of threads.

    Args:
        parts: What the plan's slices count in.
        encode: From the table of a slice to its arrays.
        layout: How the arrays travel.
        workers: Threads that read and encode.
    """

    def __init__(self, parts: Sequence[Part], encode: Encode, layout: Layout, workers: int):
        self._parts, self._encode, self._layout, self._workers = parts, encode, layout, workers
        self._cursors: dict[int, Cursor] = {}

    def read(self, plan: Plan, first: int) -> Iterator[list[np.ndarray]]:
        """The windows from number `first` on. Closing the iterator ends the threads."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mtl_zoo_stream")
        ahead: deque[tuple[list[np.ndarray], list[Future]]] = deque()
        try:
            for window in plan.windows[first:]:
                buffers = [np.empty((window.rows, *shape), dtype) for dtype, shape in self._matrices()]
                futures = []
                for piece, rows in zip(window.pieces, window.destinations(), strict=True):
                    futures.append(pool.submit(self._load, piece, self._open(piece), rows, buffers))
                ahead.append((buffers, futures))
                del buffers, futures  # a window is free once the consumer has let go of it
                if len(ahead) == 2:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            for cursor in list(self._cursors.values()):
                cursor.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            for cursor in self._cursors.values():
                cursor.close()
            self._cursors.clear()

    def _matrices(self) -> Any:
        return [self._layout.matrix_spec(group) for group in self._layout.groups]

    def _open(self, piece: Piece) -> list[Cursor]:
        """A cursor for each slice; on resuming, one starts in the middle of its part."""
        cursors = []
        for s in piece.slices:
            cursor = self._cursors.setdefault(s.part, Cursor(self._parts[s.part], s.start))
            if s.start + s.rows == self._parts[s.part].rows:
                del self._cursors[s.part]
            cursors.append(cursor)
        return cursors

    def _load(self, piece: Piece, cursors: list[Cursor], rows: np.ndarray | slice, buffers: list[np.ndarray]) -> None:
        try:
            tables = [cursor.read(s) for cursor, s in zip(cursors, piece.slices, strict=True)]
        except BaseException:
            # Slices of this piece that were not reached would keep others waiting for their turn.
            for cursor in cursors:
                cursor.stop()
            raise
        for buffer, packed in zip(buffers, self._layout.pack(self._encoded(piece, tables)), strict=True):
            buffer[rows] = packed

    def _encoded(self, piece: Piece, tables: list[pa.Table]) -> Sequence[np.ndarray]:
        try:
            return self._encode_together(tables)
        except (*UNREADABLE, ValueError, TypeError) as error:
            for table, s in zip(tables, piece.slices, strict=True):
                self._blame(table, s)
            raise error

    def _encode_together(self, tables: list[pa.Table]) -> Sequence[np.ndarray]:
        if all(table.schema.equals(tables[0].schema) for table in tables):
            return self._encode(pa.concat_tables(tables))
        # Files may differ in the width of a number, and in strings being stored by dictionary.
        return [np.concatenate(arrays) for arrays in zip(*map(self._encode, tables), strict=True)]

    def _blame(self, table: pa.Table, s: Slice) -> None:
        """Raises, naming the part, where it is the one that cannot be encoded."""
        part = self._parts[s.part]
        try:
            self._encode(table)
        except UNREADABLE as error:
            raise part.corrupt(error) from error
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} (in {part})") from error


def _finished(buffers: list[np.ndarray], futures: list[Future]) -> list[np.ndarray]:
    for future in futures:
        future.result()
    return buffers
