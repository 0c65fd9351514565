"""Processes that end with the one that started them, and so does whatever they have started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

# A variable that the processes of a cluster, and all that they start, inherit. Sessions, groups and parents are left by
# daemons; where /proc is not there, those alone escape.
MARK = "MTL_ZOO_CLUSTER"
_POLL_SECONDS = 0.1


class Signals:
    """Within it, the first SIGINT, SIGTERM or SIGHUP raises; those that follow only hurry the end.

    By default the latter two end a process at once, and its children would stay; another Ctrl-C while they are ended
    would leave those that are deaf. Handlers of the user's own stay, and signals belong to the main thread.

    Attributes:
        hurry: Whether another signal has come since the first.
    """

    def __init__(self) -> None:
        self.hurry = False
        self._has_raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number, default in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
                (signal.SIGHUP, signal.SIG_DFL),
            ):
                if signal.getsignal(number) is default:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._has_raised:
            self.hurry = True
            return
        self._has_raised = True
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def describe(code: int) -> str:
    """A negative exit code in words; real-time signals have no names."""
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def end_all(processes: Iterable[subprocess.Popen], mark: str, grace: float, hurry: Callable[[], bool]) -> None:
    """Ends processes and whatever they have started: asked first, and killed after `grace` seconds.

    Args:
        processes: Each the first of a session of its own.
        mark: Value of `MARK` in their environment.
        grace: Seconds they have to end by themselves.
        hurry: Asked meanwhile; true cuts the grace time short.
    """
    processes = list(processes)
    with _Marked(mark) as marked:
        try:
            _signal_all(processes, marked, signal.SIGTERM)
            end = time.monotonic() + grace
            while _are_left(processes, marked) and time.monotonic() < end and not hurry():
                time.sleep(_POLL_SECONDS)
        finally:
            # Again and again: a process may start another just before it dies, and a kill takes effect some time later.
            # Two looks in a row must find nothing: what has just been started has no environment for a moment.
            end, quiet = time.monotonic() + max(grace, 1.0), 0
            while True:
                _signal_all(processes, marked, signal.SIGKILL)
                quiet = 0 if _are_left(processes, marked) else quiet + 1
                if quiet == 2 or time.monotonic() > end:
                    break
                time.sleep(_POLL_SECONDS)


def _are_left(processes: list[subprocess.Popen], marked: _Marked) -> bool:
    running = [process for process in processes if process.poll() is None]
    return bool(running) or any(map(_has_group, processes)) or marked.are_left()


def _has_group(process: subprocess.Popen) -> bool:
    # The group outlives its first process while another member runs.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 0)
        return True
    return False


def _signal_all(processes: list[subprocess.Popen], marked: _Marked, number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
    marked.signal(number)


class _Marked:
    """The processes that have the mark, by handles: a number could belong to another process by the time of a signal.

    A process that is ending has lost its environment, and its mark with it, some time before it has ended. Its handle
    tells.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._handles: dict[int, int] = {}

    def __enter__(self) -> _Marked:
        return self

    def __exit__(self, *error: object) -> None:
        for pid in list(self._handles):
            self._forget(pid)

    def signal(self, number: int) -> None:
        """Sends a signal to all of them."""
        self._look()
        for handle in self._handles.values():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, number)

    def are_left(self) -> bool:
        """Whether one of them has not ended."""
        self._look()
        for pid, handle in list(self._handles.items()):
            ended = select.poll()  # a handle can be read once its process has ended
            ended.register(handle, select.POLLIN)
            if ended.poll(0):
                self._forget(pid)
        return bool(self._handles)

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            for name in os.listdir("/proc"):
                if name.isdigit() and int(name) not in self._handles and _is_marked(int(name), self._mark):
                    self._take(int(name))

    def _take(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self._handles[pid] = os.pidfd_open(pid)
            if not _is_marked(pid, self._mark):  # it ended before the handle was there
                self._forget(pid)

    def _forget(self, pid: int) -> None:
        os.close(self._handles.pop(pid))


def _is_marked(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        # Empty of processes that have ended and are not waited for.
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in variables
