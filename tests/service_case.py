"""A service in this process: a server in a thread, a client of sockets, and a servable that needs no TensorFlow."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time

import numpy as np

from mtl_zoo.service import Servable, Settings, create_app
from mtl_zoo.service.server import make_server
from mtl_zoo.serving.columns import Column

COLUMNS = {
    "number": Column("number", (), "float64", is_raw=True),
    "text": Column("text", (), "string", is_raw=True),
    "tags": Column("tags", (None,), "int64", is_raw=True),
    "place": Column("place", (), "int64", is_raw=True),
}


class Sums(Servable):
    """Scores: `sum` is a number plus the length of a text and of a list, `twice` the same twice."""

    kind = "sums"
    what = "sums"

    def __init__(self, plus=0.0, seconds=0.0):
        self.columns, self.units = COLUMNS, {"sum": 1, "twice": 2}
        self.plus, self.seconds, self.calls = plus, seconds, []
        self.may_go = threading.Event()
        self.may_go.set()

    def score(self, arrays):
        self.may_go.wait(10)
        time.sleep(self.seconds)
        self.calls.append(len(arrays["number"]))
        if 666 in arrays["place"]:
            raise RuntimeError("a secret of a row")
        lengths = np.array([len(text) for text in arrays["text"]])
        tags = (arrays["tags"] != np.iinfo("int64").min).sum(axis=1)
        total = (np.nan_to_num(arrays["number"]) + lengths + tags + self.plus).astype("float32")[:, None]
        return {"sum": total, "twice": np.concatenate([total, total], axis=1)}


def row(number=1.0, text="ab", tags=(7,), place=3):
    return {"number": number, "text": text, "tags": list(tags), "place": place}


class Client:
    """Requests of one server."""

    def __init__(self, port, service):
        self.port, self.service = port, service
        self.headers = {}

    def raw(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def get(self, path, **given):
        status, _, body = self.raw("GET", path, **given)
        return status, json.loads(body)

    def post(self, path, content, **given):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        status, _, body = self.raw("POST", path, body, **given)
        return status, json.loads(body)

    def predict(self, *rows, **given):
        return self.post(f"/v1/models/{self.service.name}:predict", {"instances": list(rows)}, **given)


@contextlib.contextmanager
def served(folder, load=None, wait=True, **settings):
    """A client of a service of a folder."""
    settings = Settings(**{"port": 0, "poll": 0.05, "settle": 0.0, **settings})
    app = create_app(folder, settings, **({} if load is None else {"load": load}))
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    service = app.state.service
    try:
        until(lambda: server.started and (not wait or service.versions.current or service.versions.failed), 120)
        assert not wait or service.versions.current, service.versions.failed
        yield Client(server.servers[0].sockets[0].getsockname()[1], service)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


def until(true, seconds=30):
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def run(coroutine):
    """The result of a coroutine, within a bound."""
    return asyncio.run(asyncio.wait_for(coroutine, 30))
