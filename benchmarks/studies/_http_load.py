"""A client that keeps connections busy, in a process of its own: the standard library alone, so that it costs little.

`python _http_load.py` reads one JSON object from stdin, `port`, `path`, `body` (a file), `connections`, `seconds`, and
writes one to stdout: `latencies_ms` of the requests that were answered with 200, `failed` by status or error, and the
`seconds` until the last answer.
"""

from __future__ import annotations

import asyncio
import collections
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


async def _keep_busy(port: int, request: bytes, stop: asyncio.Event, latencies: list[float], failed: Any) -> None:
    """One request after the other on one connection, which is opened anew if it breaks."""
    streams: Any = None
    while not stop.is_set():
        started = time.perf_counter()
        try:
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            failed[type(error).__name__] += 1
            streams = None
            await asyncio.sleep(0.01)
            continue
        status = head.split(b" ", 2)[1].decode()
        if status == "200":
            latencies.append(1000 * (time.perf_counter() - started))
        else:
            failed[status] += 1


async def load(asked: dict[str, Any]) -> dict[str, Any]:
    """What `python _http_load.py` does; SIGINT ends it before its time."""
    body = Path(asked["body"]).read_bytes()
    head = f"POST {asked['path']} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    latencies: list[float] = []
    failed: collections.Counter[str] = collections.Counter()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.call_later(asked["seconds"], stop.set)
    busy = (asked["port"], head.encode() + body, stop, latencies, failed)
    started = time.perf_counter()
    await asyncio.gather(*(_keep_busy(*busy) for _ in range(asked["connections"])))
    return {
        "latencies_ms": [round(value, 3) for value in latencies],
        "failed": failed,
        "seconds": time.perf_counter() - started,
    }


def start(port: int, path: str, body: Path, connections: int, seconds: float) -> subprocess.Popen[str]:
    """A client that runs for some seconds; `finish` waits for it."""
    asked = {"port": port, "path": path, "body": str(body), "connections": connections, "seconds": seconds}
    client = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    client.stdin.write(json.dumps(asked))
    client.stdin.close()
    return client


def finish(client: subprocess.Popen[str]) -> dict[str, Any]:
    """What a client saw."""
    assert client.stdout is not None
    found = client.stdout.read()
    if client.wait():
        raise RuntimeError(f"the client ended with {client.returncode}")
    return json.loads(found)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(load(json.load(sys.stdin)))))
