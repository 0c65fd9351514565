"""Processes that end with the one that started them, and so does whatever they have started."""

from __future__ import annotations

import contextlib
import os
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
    try:
        _signal_all(processes, mark, signal.SIGTERM)
        end = time.monotonic() + grace
        while _are_left(processes, mark) and time.monotonic() < end and not hurry():
            time.sleep(_POLL_SECONDS)
    finally:
        # Again and again: a process may start another just before it dies, and a kill takes effect some time later.
        end = time.monotonic() + max(grace, 1.0)
        while True:
            _signal_all(processes, mark, signal.SIGKILL)
            if not _are_left(processes, mark) or time.monotonic() > end:
                break
            time.sleep(_POLL_SECONDS)


def _are_left(processes: list[subprocess.Popen], mark: str) -> bool:
    running = [process for process in processes if process.poll() is None]
    return bool(running) or any(map(_has_group, processes)) or bool(_marked(mark))


def _has_group(process: subprocess.Popen) -> bool:
    # The group outlives its first process while another member runs.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 0)
        return True
    return False


def _signal_all(processes: list[subprocess.Popen], mark: str, number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
    for pid in _marked(mark):
        with contextlib.suppress(OSError):
            # A handle, since the number could belong to another process by the time of the signal.
            handle = os.pidfd_open(pid)
            try:
                if _is_marked(pid, mark):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def _marked(mark: str) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_marked(int(name), mark)]
    return []


def _is_marked(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        # Empty of processes that have ended and are not waited for.
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in variables
