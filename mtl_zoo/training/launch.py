"""A cluster of processes on this machine, for development and tests: `mtl-zoo launch`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from mtl_zoo import _validation as check
from mtl_zoo.training import _processes

_log = logging.getLogger(__name__)

# Seconds from one look at the processes to the next, and from asking a process to end to killing it.
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_HOST = "127.0.0.1"


class Launched(NamedTuple):
    """How a cluster ended.

    Args:
        code: 0 if training ended well; else the exit code of the process that failed first, 128 + the number of the
            signal that killed it, or 124 after the timeout.
        codes: Exit codes of all processes in the last attempt, by name (`"worker-0"`); negative numbers are signals.
        attempts: How often the cluster was started.
        failures: What failed, an attempt each: `"worker-1: exit code 3"`.

    Example:

    >>> from mtl_zoo.training import Launched
    >>> ended = Launched(code=0, codes={"worker-0": 0}, attempts=2, failures=("worker-0: exit code 3",))
    >>> ended.code, ended.attempts
    (0, 2)
    """

    code: int
    codes: dict[str, int]
    attempts: int
    failures: tuple[str, ...]


def launch(
    command: Sequence[str],
    workers: int = 2,
    servers: int = 0,
    *,
    restarts: int = 0,
    logs: str | Path = "logs",
    timeout: float | None = None,
    echo: Callable[[str], Any] | None = None,
    environment: Mapping[str, str] | None = None,
    started: Callable[[dict[str, int]], Any] | None = None,
) -> Launched:
    """Runs a training command as the processes of one cluster, each with its own TF_CONFIG, and waits for their end.

    Without parameter servers there are `workers` processes, of which worker 0 is the chief. With them there are
    `servers` more, and a chief of its own that gives the workers their steps; the cluster has ended when it has. When a
    process fails, the others are ended too, and the cluster is started anew as often as `restarts` says: a command that
    trains with `Checkpoints` goes on from the last one. Whatever ends `launch` (an exception, Ctrl-C, SIGTERM or SIGHUP
    in the main thread) ends all processes, and those that they have started, in other sessions too: they are asked, and
    after five seconds, or a second signal, killed.

    Args:
        command: The program and its arguments, the same for every process.
        workers: Processes that train.
        servers: Parameter servers, for `ParameterServerTrainer`.
        restarts: How often the cluster is started again after a failure.
        logs: Folder of the logs, a file for each process (`worker-0.log`); what is there is kept.
        timeout: Seconds for one attempt, after which it has failed.
        echo: Called with each line that the chief writes. If it fails (a closed pipe), it is called no more, but the
            log goes on.
        environment: Variables of the processes, beside those of this one.
        started: Called at the start of each attempt with the ids of its processes, by name.

    Raises:
        ValueError: `command` is empty; `workers` < 1; `servers` or `restarts` < 0; `timeout` <= 0.
        OSError: The program cannot be started, or `logs` cannot be written.
        SystemExit: This process got SIGTERM or SIGHUP, for which it has no handler of its own.

    Example:

    >>> import sys
    >>> from mtl_zoo.training import launch
    >>> code = "import json, os; print(json.loads(os.environ['TF_CONFIG'])['task'])"
    >>> launch([sys.executable, "-c", code], workers=2, logs="cluster-logs").codes
    {'worker-0': 0, 'worker-1': 0}
    >>> print(open("cluster-logs/worker-1.log").read().strip().splitlines()[-1])
    {'type': 'worker', 'index': 1}
    """
    if isinstance(command, str) or not command:
        raise ValueError(f"`command` must be a program and its arguments. Received: command={command!r}")
    check.check_int("workers", workers)
    check.check_int("servers", servers, minimum=0)
    check.check_int("restarts", restarts, minimum=0)
    if timeout is not None:
        check.check_number("timeout", timeout, above=0)
    folder = Path(logs)
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for attempt in range(1, restarts + 2):
        with (
            _processes.Signals() as signals,
            _Cluster(command, workers, servers, folder, attempt, echo, environment or {}, signals) as cluster,
        ):
            if started is not None:
                started(cluster.process_ids())
            failed = cluster.wait(timeout)
        if failed is None:
            return Launched(0, cluster.codes(), attempt, tuple(failures))
        name, code = failed
        failures.append(f"{name}: {_describe(code)}")
        _log.warning("attempt %d failed: %s; its log is %s", attempt, failures[-1], folder / f"{name}.log")
    return Launched(128 - code if code < 0 else code, cluster.codes(), attempt, tuple(failures))


def _describe(code: int) -> str:
    if code < 0:
        return _processes.describe(code)
    return "timeout" if code == _TIMEOUT else f"exit code {code}"


_TIMEOUT = 124


class _Cluster:
    """The processes of one attempt."""

    def __init__(
        self,
        command: Sequence[str],
        workers: int,
        servers: int,
        folder: Path,
        attempt: int,
        echo: Callable[[str], Any] | None,
        environment: Mapping[str, str],
        signals: _processes.Signals,
    ):
        roles = {"worker": workers}
        if servers:
            roles = {"chief": 1, "worker": workers, "ps": servers}
        ports = iter(_free_ports(sum(roles.values())))
        hosts = {role: [f"{_HOST}:{next(ports)}" for _ in range(count)] for role, count in roles.items()}
        self._tasks = [(role, index) for role, count in roles.items() for index in range(count)]
        self._hosts, self._folder, self._attempt = hosts, folder, attempt
        self._command, self._echo, self._environment = list(command), echo, environment
        self._has_servers = servers > 0
        self._signals, self._mark = signals, uuid.uuid4().hex
        self._processes: dict[str, subprocess.Popen] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> _Cluster:
        try:
            for role, index in self._tasks:
                self._start(role, index)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _start(self, role: str, index: int) -> None:
        name = f"{role}-{index}"
        config = json.dumps({"cluster": self._hosts, "task": {"type": role, "index": index}})
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self._environment, "TF_CONFIG": config}
        environment[_processes.MARK] = self._mark
        with open(self._folder / f"{name}.log", "a", encoding="utf-8", errors="replace") as file:
            file.write(f"--- attempt {self._attempt}\n")
            file.flush()
            echoed = self._echo is not None and name == self._chief
            process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if echoed else file,
                stderr=subprocess.STDOUT,
                # A group of its own, so that what it starts ends with it.
                start_new_session=True,
                encoding="utf-8",
                errors="replace",
            )
        self._processes[name] = process
        if echoed:
            thread = threading.Thread(target=self._copy, args=(process.stdout, name), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _copy(self, stream: IO[str], name: str) -> None:
        """Reads to the end, whatever becomes of those that get the lines: a full pipe would stop the process."""
        file = open(self._folder / f"{name}.log", "a", encoding="utf-8", errors="replace")
        sinks: dict[str, Callable[[str], Any]] = {
            f"written to {file.name}": lambda line: _write(file, line),
            "shown": lambda line: self._echo(line.rstrip("\n")),  # type: ignore[misc]
        }
        for line in stream:
            for what, sink in list(sinks.items()):
                try:
                    sink(line)
                except (Exception, SystemExit) as error:  # rich ends the thread on a closed pipe
                    del sinks[what]
                    _log.warning("lines of %s are not %s any more: %s", name, what, error or type(error).__name__)
        with contextlib.suppress(OSError):
            file.close()

    @property
    def _chief(self) -> str:
        return "chief-0" if self._has_servers else "worker-0"

    def wait(self, timeout: float | None) -> tuple[str, int] | None:
        """None when training has ended well; else the process that failed, and its code."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            codes = {name: process.poll() for name, process in self._processes.items()}
            for name, code in codes.items():
                if code:
                    return name, code
            # Workers and servers of a chief wait for its orders for ever.
            if codes[self._chief] == 0 if self._has_servers else all(code == 0 for code in codes.values()):
                return None
            if end is not None and time.monotonic() > end:
                return next(name for name, code in codes.items() if code is None), _TIMEOUT
            time.sleep(_POLL_SECONDS)

    def process_ids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def codes(self) -> dict[str, int]:
        return {name: process.returncode for name, process in self._processes.items()}

    def _end(self) -> None:
        """Ends all processes and whatever they have started."""
        _processes.end_all(self._processes.values(), self._mark, _GRACE_SECONDS, lambda: self._signals.hurry)
        for process in self._processes.values():
            process.wait()
        for thread in self._threads:
            thread.join(_GRACE_SECONDS)


def _write(file: IO[str], line: str) -> None:
    file.write(line)
    file.flush()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]
