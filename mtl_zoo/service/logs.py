"""Logs as JSON, one object a line, without anything that a client sent."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = logging.getLogger("mtl_zoo.service")
# Lines that wait for whoever reads them; more are dropped, since a slow reader must not slow the service down.
_WAITING = 10_000


def event(what: str, /, level: int = logging.INFO, **fields: Any) -> None:
    """Logs what happened. Fields hold numbers, and words of the service's own."""
    LOGGER.log(level, what, extra={"fields": fields})


def failure(error: BaseException) -> dict[str, Any]:
    """An exception as fields: its type and where it was raised, and no message, which may hold a client's values."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}


class JsonLines(logging.Formatter):
    """A record as one line of JSON, in ASCII, so that nothing in it can end the line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name}
        line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[1] is not None:
            line |= failure(record.exc_info[1])
        return json.dumps(line, default=str)


class _NeverWaits(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        if self.queue.qsize() < _WAITING:  # type: ignore[attr-defined]
            self.queue.put_nowait(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


@contextlib.contextmanager
def json_lines(stream: TextIO | None = None) -> Iterator[None]:
    """Logs of the service and of uvicorn go to a stream (default: stdout) as JSON while the block runs."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines())
    # Of the queues this one may be written to by a handler of signals, whatever it interrupts.
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, handler)
    loggers = [LOGGER, logging.getLogger("uvicorn"), logging.getLogger("uvicorn.error")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [_NeverWaits(waiting)], False
        logger.setLevel(logging.INFO if logger is LOGGER else logging.WARNING)
    loggers[2].handlers, loggers[2].propagate = [], True
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
