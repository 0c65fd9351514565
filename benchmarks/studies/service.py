"""What the service does under load: latency, throughput, a soak, switches of versions, kill -9, malformed requests.

The service, the client and the direct calls that it is compared with run in processes of their own, on the cores that
there are. A request scores one user with all candidates; the user's columns are its `context`. A connection sends its
next request when the answer to the last one is there.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies import _frame as frame
from benchmarks.studies import _http_load as client
from benchmarks.studies._malformed import malformed, send
from benchmarks.studies._steps import SMALL
from benchmarks.studies.latency import Request, write_model

COLUMNS = (
    *("case", "model", "candidates", "connections", "round", "requests", "failed", "seconds", "median_ms", "p99_ms"),
    *("per_second", "direct_per_second", "ratio", "rss_mb", "detail"),
)
_SOAK_CONNECTIONS = 8


@dataclasses.dataclass
class Running:
    """A service in a process of its own.

    Args:
        process: The process.
        port: Where it listens.
        log: What it wrote.
        started: Seconds from its start until it was ready.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started: float = 0.0

    def get(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            log = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"the service ended with {self.process.returncode}: {log}")
        return self.get("/ready")[0] == 200

    @property
    def rss_mb(self) -> float:
        """Memory that it holds."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(text.split("VmRSS:")[1].split()[0]) / 1024, 1)


def until(true: Callable[[], bool], seconds: float) -> float:
    """Waits until something is true; the seconds that it took."""
    started = time.perf_counter()
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if true():
                return time.perf_counter() - started
        if time.perf_counter() - started > seconds:
            raise RuntimeError(f"it did not happen within {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(folder: Path, log: Path) -> Iterator[Running]:
    """A service of a folder, once it is ready; killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mtl_zoo_cli", "serve", str(folder), "--port", str(port), "--settle", "0.5"]
    paths = os.pathsep.join(filter(None, [str(frame.ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": paths})
    made = Running(process, port, log)
    try:
        made.started = until(made.is_ready, 600)
        yield made
    finally:
        process.kill()
        process.wait()


def write_case(folder: Path, case: Request) -> dict[str, Any]:
    """The model as version 1 of `folder/served`, and the body of a request, which is also given."""
    write_model(case, folder)
    (folder / "served" / "1").mkdir(parents=True)
    shutil.copy(folder / "model.keras", folder / "served" / "1" / "model.keras")
    with np.load(folder / "raw.npz") as file:
        raw = {name: file[name].tolist() for name in file.files}
    context = {name: raw[name][0] for name in case.user_columns}
    inputs = {name: values for name, values in raw.items() if name not in context}
    content = {"context": context, "inputs": inputs}
    (folder / "body.json").write_text(json.dumps(content))
    return content


def direct_calls(folder: Path, seconds: float) -> float:
    """Calls of the scorer in a second, without a service; what a process of its own runs."""
    import keras

    from mtl_zoo.export import make_scorer

    with np.load(folder / "raw.npz") as file:
        raw = {n: file[n].astype(object) if file[n].dtype.kind == "U" else file[n] for n in file.files}
    scorer = make_scorer(keras.saving.load_model(folder / "model.keras"), raw=True)
    calls = 0
    for bound in (min(2.0, seconds / 4), seconds):  # the first is a warm-up
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < bound:
            scorer(raw)
            calls += 1
    return calls / (time.perf_counter() - started)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Columns of what a client saw."""
    latencies, failed, seconds = found["latencies_ms"], sum(found["failed"].values()), found["seconds"]
    row = {"requests": len(latencies) + failed, "failed": failed, "seconds": round(seconds, 1)}
    if latencies:
        row |= {"median_ms": round(float(np.median(latencies)), 2)}
        row |= {"p99_ms": round(float(np.percentile(latencies, 99)), 2)}
    return row | {"per_second": round(len(latencies) / seconds, 2), "detail": json.dumps(found["failed"])}


@dataclasses.dataclass
class Place:
    """Where a study runs: a folder with a case, the path of its model, the options, and where rows go."""

    folder: Path
    content: dict[str, Any]
    args: Any
    add: Callable[..., None]

    path = "/v1/models/served:predict"

    def service(self) -> contextlib.AbstractContextManager[Running]:
        return running(self.folder / "served", self.folder / "service.log")

    def start(self, service: Running, connections: int, seconds: float) -> subprocess.Popen[str]:
        return client.start(service.port, self.path, self.folder / "body.json", connections, seconds)


def latency(place: Place) -> None:
    """Each number of connections in turn, after direct calls, some rounds."""
    seconds = place.args.seconds
    for number in range(place.args.rounds):
        direct, _ = frame.run(direct_calls, place.folder, seconds)
        with place.service() as service:
            client.finish(place.start(service, 2, min(3.0, seconds)))  # warm-up
            for connections in place.args.connections:
                row = summary(client.finish(place.start(service, connections, seconds)))
                ratio = {"direct_per_second": round(direct, 2), "ratio": round(row["per_second"] / direct, 4)}
                place.add(connections=connections, round=number, rss_mb=service.rss_mb, **row, **ratio)


def soak(place: Place) -> None:
    """A row for each tenth of the time."""
    part = max(1.0, 60 * place.args.minutes / 10)
    with place.service() as service:
        for number in range(10):
            row = summary(client.finish(place.start(service, _SOAK_CONNECTIONS, part)))
            place.add(connections=_SOAK_CONNECTIONS, round=number, rss_mb=service.rss_mb, **row)


def switches(place: Place) -> None:
    """New versions while requests come; a row for each, and one for all requests."""
    served = place.folder / "served"
    with place.service() as service:
        first = max(int(path.name) for path in served.iterdir())
        load = place.start(service, _SOAK_CONNECTIONS, 3600.0)
        try:
            for number in range(first + 1, first + 1 + place.args.switches):
                shutil.copytree(served / str(number - 1), place.folder / "new")
                (place.folder / "new").rename(served / str(number))
                took = until(lambda wanted=str(number): service.get("/ready")[1]["served"] == wanted, 600)
                place.add(round=number, seconds=round(took, 2), rss_mb=service.rss_mb, detail="switch")
                time.sleep(1)
        finally:
            load.send_signal(signal.SIGINT)
        place.add(connections=_SOAK_CONNECTIONS, rss_mb=service.rss_mb, **summary(client.finish(load)))


def restart(place: Place) -> None:
    """Seconds from kill -9 to readiness of the next process."""
    for number in range(3):
        with place.service() as service:
            service.process.kill()
            service.process.wait()
        with place.service() as service:
            place.add(round=number, seconds=round(service.started, 2), rss_mb=service.rss_mb)


def wrong(place: Place) -> None:
    """Malformed requests; a row with the answers by status."""
    small = {**place.content, "inputs": {name: values[:3] for name, values in place.content["inputs"].items()}}
    statuses: collections.Counter[str] = collections.Counter()
    with place.service() as service:
        started = time.perf_counter()
        for request in malformed(small, place.path, place.args.malformed, place.args.seed):
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
            try:
                statuses[str(send(connection, request))] += 1
            except (OSError, http.client.HTTPException) as error:
                statuses[type(error).__name__] += 1
            finally:
                connection.close()
        elapsed = time.perf_counter() - started
        if service.get("/health")[0] != 200:
            statuses["health"] += 1
        failed = sum(n for status, n in statuses.items() if not status.isdigit() or status == "500")
        about = {"requests": place.args.malformed, "failed": failed, "detail": json.dumps(statuses)}
        place.add(seconds=round(elapsed, 1), rss_mb=service.rss_mb, **about)


CASES = {"latency": latency, "soak": soak, "switches": switches, "restart": restart, "malformed": wrong}


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m benchmarks.studies.service`."""
    sizes = {"model": "mmoe", "candidates": 1000, "vocabulary": 5000, "features": 30, "numerics": 10}
    options: dict[str, Any] = {"cases": tuple(CASES), "connections": (1, 8, 64), "seconds": 20.0, "rounds": 3}
    options |= {"minutes": 30.0, "switches": 20, "malformed": 10_000, "seed": 0}
    args = frame.parser(__doc__ or "", {**options, **sizes}).parse_args(arguments)
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        raise ValueError(f"`--cases` must be of {list(CASES)}. Received: {unknown}")
    kept = frame.Rows(args.out, COLUMNS)
    hyperparameters = SMALL if args.model == "mmoe" else {}
    case = Request(
        args.model, args.candidates, args.vocabulary, args.features, args.numerics, hyperparameters=hyperparameters
    )
    with tempfile.TemporaryDirectory() as folder:
        content = write_case(Path(folder), case)
        for name in args.cases:

            def add(which: str = name, **row: Any) -> None:
                kept.add({"case": which, "model": args.model, "candidates": args.candidates, **row})

            CASES[name](Place(Path(folder), content, args, add))
    frame.show(kept.read(), COLUMNS[:-1], "the service under load")
    return 0


if __name__ == "__main__":
    frame.start(__file__)
