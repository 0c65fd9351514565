"""Requests that no client should send, drawn by a seed: each is answered, and none of them by a 500."""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

# What takes the place of a value somewhere in a request that was right.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, -0.0, math.nan, math.inf),
    *("", "x", "0", "\x00", "\ud800", "\u202e", "größe \U0001f600", "'; drop table users; --", "{{7*7}}", "../../etc"),
    *([], [[]], [None], [1, "x"], [[1], [1, 2]], {}, {"b64": "?"}, {"b64": "AAAA"}, {"": {}}, {"a": {"b": [{}]}}),
)
_KEYS = ("", "instances", "inputs", "context", "signature_name", "user", "__class__", "größe", "a" * 3000, "\x00")
_METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "BREW")
_HEADERS = (
    {"Content-Type": "text/xml"},
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "deflate, br"},
    {"X-Request-Id": "a\tb"},
    {"Authorization": "Bearer " + "x" * 5000},
    {"Accept": "\xff"},
    {"Cookie": "=;" * 500},
    {"X-Forwarded-For": "1.2.3.4, ::1"},
    {"Expect": "200-ok"},
)

_KINDS = ("value", "value", "value", "key", "cut", "bytes", "flip", "deep", "twice", "path", "head")


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A request, and how it was made."""

    kind: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def malformed(content: dict[str, Any], path: str, count: int, seed: int) -> Iterator[Malformed]:
    """Requests that are nearly `content`, sent to `path`, and others that are nothing like it.

    Args:
        content: The body of a request that would be answered.
        path: Its route.
        count: How many.
        seed: Of all choices.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        kind = str(rng.choice(_KINDS))
        method, where, headers = "POST", path, {}
        if kind in ("value", "key"):
            body = _dumped(_changed(content, rng, kind))
        elif kind == "path":
            body, where = _dumped(content), _path(path, rng)
            method = "POST" if rng.random() < 0.5 else str(rng.choice(_METHODS))
        elif kind == "head":
            body, headers = _dumped(_changed(content, rng, "value")), dict(_HEADERS[rng.integers(len(_HEADERS))])
        else:
            body = _spoilt(_dumped(content), rng, kind)
        if rng.random() < 0.002:  # 10 MB in one string
            kind, body = "long", json.dumps({**content, "signature_name": "x" * 10_000_000}).encode()
        yield Malformed(kind, method, where, headers, body)


def _dumped(content: Any) -> bytes:
    return json.dumps(content).encode()


def _changed(content: Any, rng: np.random.Generator, kind: str) -> Any:
    """A copy in which one value, or the name of one, is another."""
    if isinstance(content, dict) and content:
        chosen = str(rng.choice(list(content)))
        if rng.random() < 0.15:
            if kind == "key":
                key = _KEYS[rng.integers(len(_KEYS))]
                return {key if name == chosen else name: value for name, value in content.items()}
            return {name: value for name, value in content.items() if name != chosen}
        return {name: _changed(v, rng, kind) if name == chosen else v for name, v in content.items()}
    if isinstance(content, list) and content and rng.random() < 0.9:
        place = int(rng.integers(len(content)))
        return [_changed(value, rng, kind) if i == place else value for i, value in enumerate(content)]
    return _VALUES[rng.integers(len(_VALUES))]


def _spoilt(body: bytes, rng: np.random.Generator, kind: str) -> bytes:
    if kind == "cut":
        return body[: rng.integers(len(body))]
    if kind == "bytes":
        return rng.bytes(int(rng.integers(0, 300)))
    if kind == "flip":
        found = bytearray(body)
        for place in rng.integers(0, len(found), 3):
            found[place] = rng.integers(256)
        return bytes(found)
    if kind == "twice":
        return b"{" + body.strip()[1:-1] + b"," + body.strip()[1:-1] + b"}"
    depth = int(10 ** rng.uniform(1, 5))
    opening, closing = (b'{"a":', b"}") if rng.random() < 0.5 else (b"[", b"]")
    return b'{"instances": ' + opening * depth + b"1" + closing * (depth if rng.random() < 0.5 else 0) + b"}"


def _path(path: str, rng: np.random.Generator) -> str:
    model, _, verb = path.rpartition(":")
    others = (
        f"{model}/versions/{'9' * int(rng.integers(1, 4000))}:{verb}",
        f"{model}/versions/../..:{verb}",
        f"{model}/versions/-1:{verb}",
        f"{model}/versions/%00:{verb}",
        f"{model}/versions/%ff%fe:{verb}",
        f"{model}/../../../etc/passwd:{verb}",
        f"{model}%0d%0aX-Forged:%201:{verb}",
        f"{model}:{verb}:{verb}",
        f"{model}/metadata",
        f"{path}?{'a=b&' * 500}",
        "/recommend",
        "/v1/models/",
        "//",
        "/*",
    )
    return others[rng.integers(len(others))]


def send(connection: http.client.HTTPConnection, request: Malformed) -> int:
    """The status of the answer."""
    connection.request(request.method, request.path, request.body, request.headers)
    response = connection.getresponse()
    response.read()
    return response.status
