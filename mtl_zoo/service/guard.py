"""What stands before every route: who may ask, one answer for whatever goes wrong, a log line and metrics."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from mtl_zoo.service import logs
from mtl_zoo.service.body import Disconnected
from mtl_zoo.service.errors import RequestError
from mtl_zoo.service.metrics import Metrics
from mtl_zoo.service.settings import Settings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")
# What orchestrators ask, and the demo page itself, which holds nothing.
_OPEN = ("/health", "/ready", "/")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
# Of nginx: the client closed the connection.
CLIENT_GONE = 499


def route_of(path: str) -> str:
    """The route's name for logs and metrics: one of a few, whatever the path is."""
    if path.startswith("/v1/models/"):
        for end, name in ((":predict", "predict"), ("/metadata", "metadata")):
            if path.endswith(end):
                return name
        return "status"
    known = {"/": "page", "/recommend": "recommend", "/health": "health", "/ready": "ready", "/metrics": "metrics"}
    return known.get(path, "other")


class Guard:
    """ASGI middleware.

    Args:
        app: What is behind it.
        settings: Hosts and key.
        metrics: Told of every request.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], settings: Settings, metrics: Metrics):
        self._app, self._metrics = app, metrics
        self._hosts = settings.allowed_hosts
        key = settings.api_key
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        # Filled in by the routes: rows, version, reason.
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["facts"] = facts
        status = 0

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        self._metrics.open.inc()
        try:
            self._refuse(scope, headers)
            await self._app(scope, receive, answer)
        except Disconnected:
            status = CLIENT_GONE
            facts["reason"] = "client_gone"
        except RequestError as error:
            facts["reason"] = error.reason
            await respond(answer, error.status, error.message, error.headers)
        except Exception as error:
            facts["reason"] = "internal"
            logs.event("error", logging.ERROR, id=request_id, **logs.failure(error))
            if not status:
                await respond(answer, 500, f"Something went wrong here. The log has it under the id {request_id}.")
        finally:
            self._metrics.open.dec()
            self._tell(scope, request_id, status, time.perf_counter() - started, facts)

    def _refuse(self, scope: Scope, headers: Mapping[str, str]) -> None:
        if "*" not in self._hosts and _host(headers.get("host", "")) not in self._hosts:
            raise RequestError(400, "The header Host must be one that this service is known by.", "host")
        if self._digest is None or scope["path"] in _OPEN:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Digests are of one length, and compared in a time that does not depend on them.
        if not hmac.compare_digest(_digest(shown.encode("latin-1", "replace")), self._digest):
            text = "The request must show the service's API key."
            raise RequestError(401, text, "api_key", {"WWW-Authenticate": "Bearer", "Connection": "close"})

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float, facts: dict[str, Any]) -> None:
        route = route_of(scope["path"])
        self._metrics.request(route, status, seconds)
        if "reason" in facts:
            self._metrics.refused.labels(facts["reason"]).inc()
        level = logging.ERROR if status >= 500 and status not in (503, 504) else logging.INFO
        if route in ("health", "ready", "metrics") and status < 400:
            level = logging.DEBUG  # asked every few seconds
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        milliseconds = round(1000 * seconds, 2)
        logs.event("request", level, id=request_id, route=route, method=method, status=status, ms=milliseconds, **facts)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host(header: str) -> str:
    """The host of a header `host:port`, `[address]:port`, or without a port."""
    return re.sub(r":\d*\Z", "", header.strip().lower())


async def respond(send: Send, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
    """An error, as TensorFlow Serving's REST API tells it."""
    body = json.dumps({"error": message}).encode()
    pairs = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    pairs += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
