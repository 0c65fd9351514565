"""The study of the service: its client counts what it sees, and malformed requests are refused and never a 500."""

import collections
import http.client
import json

import pandas as pd
import pytest
from service_case import Sums, row, served

from benchmarks.studies import _http_load as load
from benchmarks.studies import service
from benchmarks.studies._malformed import malformed, send

CONTENT = {"context": {"text": "größe"}, "inputs": {"number": [1.5, 2], "tags": [[1], []], "place": [1, 2]}}
PATH = "/v1/models/sums:predict"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "sums"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "file").write_text("")
    with served(folder, lambda path: Sums(), max_body=2**20) as made:
        yield made


def test_malformed_requests_are_the_same_for_a_seed_and_of_all_kinds():
    first, second = (list(malformed(CONTENT, PATH, 400, 3)) for _ in range(2))
    assert first == second and first != list(malformed(CONTENT, PATH, 400, 4))
    kinds = {"value", "key", "cut", "bytes", "flip", "deep", "twice", "path", "head"}
    assert kinds <= {request.kind for request in first}


def test_none_of_them_is_a_500(client):
    assert client.post(PATH, CONTENT)[0] == 200
    statuses = collections.Counter()
    for request in malformed(CONTENT, PATH, 400, 0):
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        status = send(connection, request)
        connection.close()
        assert status != 500, request
        statuses[status] += 1
    assert statuses[400] > 100 and {404, 405} & set(statuses)
    assert client.post(PATH, CONTENT)[0] == 200 and client.service.bodies.held == 0


def test_the_client_counts(client, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [row()]}))
    found = load.finish(load.start(client.port, PATH, body, 3, 0.5))
    summary = service.summary(found)
    assert summary["failed"] == 0 and summary["requests"] == len(found["latencies_ms"]) > 3
    assert 0 < summary["median_ms"] <= summary["p99_ms"] and found["seconds"] >= 0.5
    assert summary["per_second"] == pytest.approx(summary["requests"] / found["seconds"], rel=0.01)
    body.write_text("{")
    found = load.finish(load.start(client.port, PATH, body, 1, 0.2))
    assert not found["latencies_ms"] and found["failed"]["400"] > 0


def test_a_case_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`--cases` must be of"):
        service.main(["--cases", "speed", "--out", str(tmp_path / "service.csv")])


@pytest.mark.slow
@pytest.mark.tensorflow
def test_sigterm_ends_it_with_code_0(tmp_path):
    case = service.Request("shared_bottom", 5, 9, 4, 3)
    service.write_case(tmp_path, case)
    with service.running(tmp_path / "served", tmp_path / "log") as running:
        running.process.terminate()
        assert running.process.wait(60) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines() if line[0] == "{"]
    assert events[-2:] == ["draining", "ended"]


@pytest.mark.slow
@pytest.mark.tensorflow
def test_every_case_of_a_small_model(tmp_path):
    out = tmp_path / "service.csv"
    sizes = ["--model", "shared_bottom", "--candidates", "5", "--vocabulary", "9", "--features", "4", "--numerics", "3"]
    short = ["--seconds", "1", "--rounds", "1", "--connections", "1", "2", "--minutes", "0.1", "--switches", "2"]
    assert service.main([*sizes, *short, "--malformed", "100", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert set(table["case"]) == set(service.CASES)
    assert (table["failed"].dropna() == 0).all()
    assert (table["ratio"][table["case"] == "latency"] > 0).all()
    assert (table["seconds"][table["case"] == "restart"] > 0).all()
