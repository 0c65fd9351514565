"""The routes, as a client of sockets sees them."""

import contextlib
import http.client
import io
import json
import logging
import re
import socket
import threading
import time

import pytest
from service_case import Sums, row, served, until

from mtl_zoo.service import Settings, create_app
from mtl_zoo.service.logs import JsonLines, json_lines

KEY = "a-long-enough-key"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "funnel"
    for number in (1, 2):
        (path / str(number)).mkdir(parents=True)
        (path / str(number) / "plus").write_text(str(number))
    return path


def read(path):
    return Sums(plus=float((path / "plus").read_text()))


@pytest.fixture(scope="module")
def client(folder):
    with served(folder, read, deadline=2.0, max_body=4096, max_rows=20, keep=2) as made:
        yield made


def test_scores_by_row_and_by_column(client):
    status, found = client.predict(row(), row(number=5))
    assert (status, found) == (
        200,
        {"predictions": [{"sum": [6.0], "twice": [6.0, 6.0]}, {"sum": [10.0], "twice": [10.0, 10.0]}]},
    )
    inputs = {name: [value] for name, value in row().items()}
    status, found = client.post("/v1/models/funnel:predict", {"inputs": inputs, "signature_name": "serving_default"})
    assert (status, found) == (200, {"outputs": {"sum": [[6.0]], "twice": [[6.0, 6.0]]}})
    assert client.post("/v1/models/funnel/versions/2:predict", {"inputs": inputs})[0] == 200


def test_status_and_metadata(client):
    ok = {"error_code": "OK", "error_message": ""}
    one = {"model_version_status": [{"version": "2", "state": "AVAILABLE", "status": ok}]}
    assert client.get("/v1/models/funnel") == (200, one) == client.get("/v1/models/funnel/versions/2")
    status, found = client.get("/v1/models/funnel/metadata")
    assert status == 200 and found["model_spec"] == {"name": "funnel", "signature_name": "", "version": "2"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    tags = signature["inputs"]["tags"]
    assert tags["dtype"] == "DT_INT64" and [d["size"] for d in tags["tensor_shape"]["dim"]] == ["-1", "-1"]
    assert signature["inputs"]["text"]["dtype"] == "DT_STRING" and set(signature["outputs"]) == {"sum", "twice"}
    assert client.get("/v1/models/funnel/versions/2/metadata") == (status, found)


def test_health_and_readiness(client):
    assert client.get("/health") == (200, {"status": "live"})
    assert client.get("/ready") == (200, {"ready": True, "draining": False, "served": "2", "failed": {}})


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/funnel/versions/9:predict", 404),
        ("POST", "/v1/models/funnel/versions/..:predict", 404),
        ("POST", "/v1/models/funnel/versions/%2e%2e%2f1:predict", 404),
        ("POST", "/v1/models/..%2f..%2fetc%2fpasswd:predict", 404),
        ("POST", "/v1/models/funnel/versions/1%00:predict", 404),
        ("POST", "/v1/models/funnel/versions/02:predict", 404),
        ("POST", "/v1/models/funnel/versions/" + "9" * 5000 + ":predict", 404),
        ("GET", "/v1/models/../../../etc/passwd", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/funnel/versions/7", 404),
        ("GET", "/v1/models/funnel/versions/x/metadata", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/health/", 404),
        ("GET", "//evil.example/health", 404),
        ("POST", "/recommend", 404),
        ("GET", "/v1/models/funnel:predict", 404),
        ("PUT", "/v1/models/funnel:predict", 405),
        ("DELETE", "/health", 405),
    ],
)
def test_what_is_not_there_is_an_error_as_tensorflow_serving_tells_it(client, method, path, status):
    found, headers, body = client.raw(method, path, b"{}" if method == "POST" else None)
    assert found == status and list(json.loads(body)) == ["error"]
    assert headers["content-type"] == "application/json" and "location" not in headers


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "must be JSON"),
        (b"\xff", "must be UTF-8"),
        (b'{"instances": [' + b"[" * 900 + b"]" * 900 + b"]}", r"`instances\[0\]` must be an object"),
        (b'{"instances": [{"number": NaN, "text": 1, "tags": [], "place": 1}]}', "column 'text'"),
        (b'{"instances": [{"number": 1e999, "text": "", "tags": [], "place": 1}]}', "column 'number'"),
        (json.dumps({"instances": [row()] * 21}).encode(), "1 to 20 rows"),
    ],
)
def test_malformed_bodies_name_the_field(client, body, words):
    status, found = client.post("/v1/models/funnel:predict", body)
    assert status == 400 and re.search(words, found["error"])


def test_bodies_are_bounded(client):
    path = "/v1/models/funnel:predict"
    for size in (4097, 9000, 10**7):
        status, _, body = client.raw("POST", path, b" " * size) if size < 10**6 else announced(client, path, size)
        assert status == 413 and "at most 4096 bytes" in json.loads(body)["error"]
    assert client.raw("POST", path, b"{}", {"Content-Encoding": "gzip"})[0] == 415
    assert client.service.bodies.held == 0
    chunked = iter([b"{" + b" " * 3000, b" " * 3000])
    assert client.raw("POST", path, chunked)[0] == 413


def announced(client, path, size):
    """What is answered before a body comes that is announced to be large."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/models/funnel:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/funnel:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Bad: a\x00b\r\n\r\n",
    ],
)
def test_broken_http_is_400(client, head):
    with socket.create_connection(("127.0.0.1", client.port), 10) as connection:
        with contextlib.suppress(ConnectionError):  # the answer may come before all was sent
            connection.sendall(head)
        assert re.match(rb"HTTP/1.1 4\d\d", connection.recv(100))
    assert client.get("/health")[0] == 200


def test_slow_bodies_and_slow_models_end_at_the_deadline(folder):
    servable = Sums()
    with served(folder, lambda path: servable, deadline=0.3) as client:
        with socket.create_connection(("127.0.0.1", client.port), 10) as connection:
            connection.sendall(b"POST /v1/models/funnel:predict HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b'Content-Length: 10\r\n\r\n{"a"')
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        servable.may_go.clear()
        started = time.monotonic()
        status, found = client.predict(row())
        assert status == 504 and "deadline" in found["error"] and time.monotonic() - started < 5
        servable.may_go.set()
        assert client.predict(row())[0] == 200
        assert client.service.bodies.held == 0


def test_a_request_that_is_cut_off_frees_its_place(folder):
    servable = Sums()
    with served(folder, lambda path: servable, queue_requests=1, deadline=20) as client:
        servable.may_go.clear()
        body = json.dumps({"instances": [row()]}).encode()
        head = b"POST /v1/models/funnel:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        busy = socket.create_connection(("127.0.0.1", client.port), 10)
        busy.sendall(head + body)
        until(lambda: client.service.batcher._running_since is not None)
        waits = socket.create_connection(("127.0.0.1", client.port), 10)
        waits.sendall(head + body)
        until(lambda: client.service.batcher.waiting == 1)
        status, headers, _ = client.raw("POST", "/v1/models/funnel:predict", body)
        assert status == 429 and headers["retry-after"] == "1"
        waits.close()
        until(lambda: client.service.batcher.waiting == 0)
        servable.may_go.set()
        assert client.predict(row())[0] == 200
        busy.close()
        assert client.service.bodies.held == 0
        assert 'mtl_zoo_refused_total{reason="client_gone"} 1.0' in client.raw("GET", "/metrics")[2].decode()


def test_an_error_of_the_model_tells_nothing(client):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("mtl_zoo.service")
    logger.addHandler(handler)
    try:
        status, found = client.predict(row(place=666, text="private words"))
    finally:
        logger.removeHandler(handler)
    assert status == 500 and "secret" not in found["error"]
    line = json.loads(stream.getvalue().splitlines()[0])
    assert line["error"] == "RuntimeError" and line["id"] in found["error"] and "service_case.py" in str(line["at"])
    assert "secret" not in stream.getvalue() and "private" not in stream.getvalue()


def test_the_key_is_asked_for(folder):
    with served(folder, read, api_key=KEY) as client:
        for headers, status in (
            ({}, 401),
            ({"X-API-Key": KEY[:-1]}, 401),
            ({"X-API-Key": "\xff" * 10}, 401),
            ({"Authorization": f"Basic {KEY}"}, 401),
            ({"Authorization": f"Bearer {KEY}"}, 200),
            ({"X-API-Key": KEY}, 200),
        ):
            assert client.predict(row(), headers=headers)[0] == status
            assert client.raw("GET", "/metrics", headers=headers)[0] == status
        assert client.raw("GET", "/health")[0] == client.raw("GET", "/ready")[0] == 200
        assert client.raw("GET", "/v1/models/funnel")[1]["www-authenticate"] == "Bearer"
    assert KEY not in repr(Settings(api_key=KEY))


def test_other_hosts_are_refused(client, folder):
    for host, status in (
        ("localhost", 200),
        ("127.0.0.1:8501", 200),
        ("[::1]:80", 200),
        ("LOCALHOST", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("", 400),
    ):
        assert client.raw("GET", "/health", headers={"Host": host})[0] == status
    with served(folder, read, hosts=("Scores.example",)) as other:
        assert other.raw("GET", "/health", headers={"Host": "scores.example:80"})[0] == 200
        assert other.raw("GET", "/health")[0] == 400


def test_ids_of_requests_are_echoed_if_they_are_plain(client):
    assert client.raw("GET", "/health", headers={"X-Request-Id": "abc-1.2"})[1]["x-request-id"] == "abc-1.2"
    for given in ("a b", 'x"}', "é", "a" * 65):
        found = client.raw("GET", "/health", headers={"X-Request-Id": given.encode()})[1]["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", found)


def test_labels_of_metrics_do_not_grow_with_requests(client):
    def series():
        text = client.raw("GET", "/metrics")[2].decode()
        return {line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    client.raw("GET", "/v1/models/x0")
    client.raw("BREW0", "/path0")
    series()
    before = series()
    for n in range(1, 20):
        client.raw("GET", f"/v1/models/x{n}")
        client.raw(f"BREW{n}", f"/path{n}", headers={"X-Request-Id": f"id{n}"})
    assert series() == before
    assert any(name.startswith("mtl_zoo_batch_rows_bucket") for name in before)


def test_logs_are_json_and_hold_nothing_that_was_sent(folder):
    stream = io.StringIO()
    with json_lines(stream), served(folder, read) as client:
        client.predict(row(text="private words"))
        client.predict(row(text=4711_4711))
        client.raw("GET", "/v1/models/private%0A%7B%22event%22:%20%22forged%22%7D", headers={"User-Agent": "private"})
        client.raw("PRIVATE", "/private?private=private")
        client.raw("GET", "/health")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["method"], line["status"]) for line in requests] == [
        ("predict", "POST", 200),
        ("predict", "POST", 400),
        ("status", "GET", 404),
        ("other", "OTHER", 404),
    ]
    assert requests[0]["rows"] == 1 and requests[0]["version"] == 2 and requests[1]["reason"] == "input"
    assert {"version_loading", "version_served"} <= {line["event"] for line in lines}
    assert "private" not in stream.getvalue().lower() and "4711" not in stream.getvalue()


def test_a_new_version_takes_over_and_none_that_fails(tmp_path):
    folder = tmp_path / "funnel"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "plus").write_text("1")
    with served(folder, read) as client:
        codes, done = [], threading.Event()

        def ask():
            while not done.is_set():
                codes.append(client.predict(row())[0])

        thread = threading.Thread(target=ask)
        thread.start()
        for number, text in ((2, "2"), (3, "bad"), (4, "4")):
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "plus").write_text(text)
            (tmp_path / "new").rename(folder / str(number))
            if text == "bad":
                until(lambda: client.get("/ready")[1]["failed"] == {"3": "ValueError"})
            else:
                until(lambda wanted=str(number): client.get("/ready")[1]["served"] == wanted)
        assert client.predict(row())[1]["predictions"][0]["sum"] == [8.0]
        status = {s["version"]: s for s in client.get("/v1/models/funnel")[1]["model_version_status"]}
        assert status["4"]["state"] == "AVAILABLE" and "could not convert" in status["3"]["status"]["error_message"]
        done.set()
        thread.join()
        assert len(codes) > 3 and set(codes) == {200}


def test_before_a_version_is_there_nothing_is_ready(tmp_path):
    (tmp_path / "funnel").mkdir()
    with served(tmp_path / "funnel", read, wait=False) as client:
        assert client.get("/ready")[0] == 503 and client.get("/health")[0] == 200
        status, headers, _ = client.raw("POST", "/v1/models/funnel:predict", b"{}")
        assert status == 503 and headers["retry-after"] == "1"


def test_open_requests_are_answered_at_the_end(folder):
    servable, found = Sums(), []
    with served(folder, lambda path: servable, deadline=20) as client:
        servable.may_go.clear()
        thread = threading.Thread(target=lambda: found.append(client.predict(row())[0]))
        thread.start()
        until(lambda: client.service.batcher._running_since is not None)
        threading.Timer(0.5, servable.may_go.set).start()
    thread.join()
    assert found == [200]


def test_what_cannot_be_served_is_said_at_once(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`folder` must be a folder of versions, or a model"):
        create_app(tmp_path / "nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mtl-zoo\[serve\]'. Missing: \['fastapi', 'orjson', 'uvicorn'"):
        create_app(tmp_path)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"port": 70000}, "`port` must be a whole number <= 65,535"),
        ({"deadline": 0}, "`deadline` must be a finite number and > 0"),
        ({"queue_requests": 0}, "`queue_requests` must be a whole number >= 1"),
        ({"name": "../x"}, "`name` must be 1 to 100 letters"),
        ({"api_key": "short"}, "`api_key` must be at least 8 .* Received: 5 characters"),
        ({"api_key": "with space and more"}, "`api_key` must be"),
    ],
)
def test_settings_are_checked(given, words):
    with pytest.raises(ValueError, match=words):
        Settings(**given)


def test_only_those_of_this_machine_are_answered_unless_asked():
    assert Settings().host == "127.0.0.1" and Settings().allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert Settings(host="0.0.0.0").allowed_hosts == ("*",)


def test_signals_are_given_back_to_who_called(folder, monkeypatch):
    """A program that serves and goes on can be interrupted afterwards."""
    import signal

    import uvicorn

    from mtl_zoo.service.server import serve

    monkeypatch.setattr(uvicorn.Server, "run", lambda self: None)
    monkeypatch.setattr("gc.freeze", lambda: None)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert serve(folder, Settings(port=0)) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
