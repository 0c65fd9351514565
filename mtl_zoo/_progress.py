"""A bar for what takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, ClassVar

QUIET_SECONDS = 2.0


class Bar:
    """A bar on the terminal that appears once the work has taken longer than `QUIET_SECONDS`; elsewhere nothing.

    It appears by itself, so that work of one long step has it too.

    Args:
        text: What is done.
        total: How much there is to do. None: that is not known, and the bar only moves.
        verbose: 0: nothing is shown.

    Example:

    >>> from mtl_zoo._progress import Bar
    >>> with Bar("Scoring rows", total=3) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    >>> bar.done
    3
    """

    _open: ClassVar[Bar | None] = None

    def __init__(self, text: str, total: int | None = None, verbose: int = 1) -> None:
        self._text, self._total, self._verbose = text, total, verbose
        self.started, self.done = time.monotonic(), 0
        self._bar: Any = None
        self._task: Any = None
        self._timer: threading.Timer | None = None
        self._lock, self._ended = threading.Lock(), False

    def __enter__(self) -> Bar:
        # One bar at a time: what is done within something that has one is part of that.
        self._verbose = self._verbose if Bar._open is None else 0
        if self._verbose:
            Bar._open = self
            if _has_terminal():
                self._timer = threading.Timer(QUIET_SECONDS, self._show)
                self._timer.daemon = True
                self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the bar away."""
        if Bar._open is self:
            Bar._open = None
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """So much is done in all."""
        self.done = done
        late = time.monotonic() - self.started > QUIET_SECONDS
        if self._bar is None and self._verbose and late and (self._total is None or done < self._total):
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def _show(self) -> None:
        with self._lock:  # the timer's thread, or the one that works
            if self._bar is not None or self._ended:
                return
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
            console = Console(stderr=True)
            bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            bar.start()
            self._task = bar.add_task(self._text, total=self._total, completed=self.done)
            self._bar = bar


def _has_terminal() -> bool:
    """Whether a bar may be seen, told without importing rich."""
    return sys.stderr is not None and sys.stderr.isatty()
