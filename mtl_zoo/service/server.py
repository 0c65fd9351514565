"""What `mtl-zoo serve` runs: the application under uvicorn, until it is told to end."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtl_zoo.service import logs
from mtl_zoo.service.app import create_app, require_extra
from mtl_zoo.service.settings import Settings

# Seconds that a connection without a request stays open.
_KEEP_ALIVE = 30


def make_server(app: Any, settings: Settings) -> Any:
    """A uvicorn server of the application, whose `/ready` fails from the moment that it is told to end."""
    require_extra()
    import uvicorn

    service = app.state.service

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            service.is_draining = True
            logs.event("draining", signal=signal.Signals(sig).name)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="h11",  # whatever else is installed: limits of headers are its
        log_config=None,
        access_log=False,
        ws="none",
        proxy_headers=False,  # nothing here asks who the client is
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    return Server(config)


def serve(folder: str | os.PathLike[str], settings: Settings | None = None) -> int:
    """Serves the newest version of a model in a folder, until SIGTERM or SIGINT.

    Open requests are answered first. Logs go to stdout, one JSON object a line.

    Args:
        folder: Holds numbered folders, one a version, or a model itself.
        settings: Limits. Default: those of `Settings()`.

    Returns:
        The exit code.

    Raises:
        ValueError: The folder does not exist.
        ImportError: The extra `[serve]` is not installed.
    """
    settings = Settings() if settings is None else settings
    app = create_app(folder, settings)
    server = make_server(app, settings)
    # What was imported stays: collections of garbage need not look at it again.
    gc.collect()
    gc.freeze()
    with _nothing_on_signals(), logs.json_lines():
        logs.event("starting", folder=str(Path(folder)), name=app.state.service.name, **_limits(settings))
        if settings.host not in ("127.0.0.1", "localhost", "::1") and settings.api_key is None:
            logs.event("open_to_others", logging.WARNING, host=settings.host, advice="set an API key")
        try:
            server.run()
        except SystemExit:  # the port is taken, which uvicorn has logged
            return 1
        stalled = app.state.service.batcher.is_stalled
        logs.event("ended", stalled=stalled)
    if stalled:  # a call that never ends would keep the process
        sys.stdout.flush()
        os._exit(1)
    return 0


@contextlib.contextmanager
def _nothing_on_signals() -> Iterator[None]:
    """uvicorn raises a signal once more when it has ended, which does nothing in the block: the exit code is 0."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _limits(settings: Settings) -> dict[str, Any]:
    names = ("host", "port", "deadline", "max_body", "max_rows", "queue_requests", "batch_rows")
    return {name: getattr(settings, name) for name in names} | {"api_key": settings.api_key is not None}
