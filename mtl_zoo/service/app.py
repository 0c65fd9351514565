"""The routes of the service."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_zoo import __version__
from mtl_zoo.service import logs
from mtl_zoo.service.batching import Batcher
from mtl_zoo.service.body import Bodies, kind_of, parse
from mtl_zoo.service.columns import SIGNATURE, Rows, answer, read_rows
from mtl_zoo.service.errors import RequestError
from mtl_zoo.service.guard import Guard
from mtl_zoo.service.metrics import Metrics
from mtl_zoo.service.servables import Servable, load_servable
from mtl_zoo.service.settings import Settings, name_of
from mtl_zoo.service.versions import Versions

EXTRA = "The service needs the packages of the extra: pip install 'mtl-zoo[serve]'."
# A body of this size is parsed beside the loop, which answers others meanwhile.
_LARGE = 1 << 20
# TensorFlow's names of types are `DT_` and the name in capitals, but for these.
_TYPES = {"float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE"}


class Service:
    """The parts of a running service.

    Args:
        folder: Of the versions.
        settings: Limits.
        load: Loads and warms up what is at a path.
    """

    def __init__(self, folder: Path, settings: Settings, load: Callable[[Path], Servable]):
        self.settings = settings
        self.name = settings.name or name_of(folder.stem if folder.is_file() else folder.name)
        self.metrics = Metrics()
        self.versions = Versions(folder, settings, self.metrics, load)
        self.batcher = Batcher(settings, self.metrics)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.bodies = Bodies(settings.max_body, settings.max_buffered)
        self.is_draining = False
        self._parsing = asyncio.Semaphore(2)

    @contextlib.asynccontextmanager
    async def running(self, app: Any) -> AsyncIterator[None]:
        """Works while the block runs."""
        self.batcher.start()
        watcher = asyncio.get_running_loop().create_task(self.versions.watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            await self.batcher.stop()

    async def predict(self, request: Any) -> dict[str, Any]:
        """`:predict`."""

        def read(given: dict[str, Any], servable: Servable) -> Rows:
            rows = read_rows(given, servable.columns, self.settings.max_rows, self.settings.max_values)
            request.state.facts["rows"] = rows.count
            return rows

        self.check_name(request)
        rows, scores = await self._asked(request, read)
        return answer(scores, rows.by_row)

    async def recommend(self, request: Any) -> dict[str, Any]:
        """`/recommend`."""

        _, found = await self._asked(request, lambda given, servable: servable.asked(given))
        return found

    async def _asked(self, request: Any, read: Callable[[dict[str, Any], Servable], Any]) -> tuple[Any, Any]:
        """The work that a request's body describes, and what came of it."""
        deadline = asyncio.get_running_loop().time() + self.settings.deadline
        number, servable = self.versions.get(request.path_params.get("version"))
        request.state.facts["version"] = number
        body = await self.bodies.read(request.headers, request.receive, deadline)
        size = len(body)
        gone = asyncio.get_running_loop().create_task(_gone(request.receive))
        try:
            if size < _LARGE:
                work = read(parse(body), servable)
            else:
                async with asyncio.timeout_at(deadline), self._parsing:
                    work = await asyncio.to_thread(lambda: read(parse(body), servable))
            return work, await self.batcher.submit(servable, work, deadline, gone)
        except TimeoutError:
            raise RequestError(504, "The deadline passed before the body was read.", "deadline") from None
        finally:
            gone.cancel()
            self.bodies.release(size)

    def check_name(self, request: Any) -> None:
        """Refuses the name of another model."""
        name = request.path_params["name"]
        if name != self.name:
            text = f"There is no model {kind_of(name)}. Expected: {self.name!r}"
            raise RequestError(404, text, "unknown_model")

    def status(self, request: Any) -> dict[str, Any]:
        """`GET /v1/models/NAME[/versions/N]`."""
        self.check_name(request)
        number = request.path_params.get("version")
        found = [v.status() for v in self.versions.tried if number in (None, str(v.number))]
        if not found and number is not None:
            raise RequestError(404, "This version is not known.", "unknown_version")
        return {"model_version_status": found}

    def metadata(self, request: Any) -> dict[str, Any]:
        """`GET /v1/models/NAME[/versions/N]/metadata`."""
        self.check_name(request)
        number, servable = self.versions.get(request.path_params.get("version"))

        def tensor(name: str, dtype: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
            sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in (None, *shape)]
            of_tensor = _TYPES.get(dtype, f"DT_{dtype.upper()}")
            return {"dtype": of_tensor, "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": name}

        types = servable.types
        signature = {
            "inputs": {name: tensor(name, c.dtype, c.shape) for name, c in servable.columns.items()},
            "outputs": {name: tensor(name, types.get(name, "float32"), (n,)) for name, n in servable.units.items()},
            "method_name": "tensorflow/serving/predict",
        }
        spec = {"name": self.name, "signature_name": "", "version": str(number)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}}}

    def health(self) -> dict[str, Any]:
        """`/health`: fails if nothing but a restart helps."""
        if self.batcher.is_stalled:
            raise RequestError(503, "A call of the model does not end.", "stalled")
        return {"status": "live"}

    def ready(self) -> tuple[dict[str, Any], int]:
        """`/ready`: whether requests should come here."""
        current = self.versions.current
        is_ready = current is not None and not self.is_draining and not self.batcher.is_stalled
        failed = {number: why.split(":")[0] for number, why in self.versions.failed.items()}
        served = None if current is None else str(current.number)
        found = {"ready": is_ready, "draining": self.is_draining, "served": served, "failed": failed}
        return found, 200 if is_ready else 503


async def _gone(receive: Callable[[], Any]) -> None:
    """Ends when the client does."""
    while (await receive())["type"] != "http.disconnect":
        pass


def create_app(
    folder: str | os.PathLike[str],
    settings: Settings | None = None,
    load: Callable[[Path], Servable] = load_servable,
) -> Any:
    """A FastAPI application that serves the newest version of a model in a folder.

    `mtl-zoo serve` runs it. `app.state.service` has its parts.

    Args:
        folder: Holds numbered folders, one a version, or a model itself.
        settings: Limits. Default: those of `Settings()`.
        load: Makes a servable of a version's path. Default: what `mtl_zoo.service.servables` knows.

    Raises:
        ValueError: The folder does not exist.
        ImportError: The extra `[serve]` is not installed.

    Example:

    >>> from mtl_zoo import BinaryTask, Categorical, create_model
    >>> from mtl_zoo.service import create_app
    >>> model = create_model("shared_bottom", [Categorical("city", size=9)], [BinaryTask("click")])
    >>> model.save("city.keras")
    >>> create_app("city.keras").state.service.name
    'city'
    """
    require_extra()
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException

    place = Path(folder).absolute()
    if not place.exists():
        raise ValueError(f"`folder` must be a folder of versions, or a model. Received: folder={str(folder)!r}")
    service = Service(place, Settings() if settings is None else settings, load)
    # No pages of documentation: they would load scripts of other sites.
    app = FastAPI(
        title="mtl_zoo", version=__version__, lifespan=service.running, openapi_url=None, redirect_slashes=False
    )
    app.state.service = service

    async def refused(request: Any, error: Exception) -> Any:
        found: Any = error
        raise RequestError(found.status_code, str(found.detail), "route", found.headers) from None

    app.add_exception_handler(HTTPException, refused)
    _add_routes(app, service)
    _add_demo(app, service)
    app.add_middleware(Guard, settings=service.settings, metrics=service.metrics)
    return app


def require_extra() -> None:
    """Refuses to go on without the packages of the extra.

    Raises:
        ImportError: One is missing.
    """
    missing = [n for n in ("fastapi", "orjson", "uvicorn", "prometheus_client") if importlib.util.find_spec(n) is None]
    if missing:
        raise ImportError(f"{EXTRA} Missing: {missing}")


def _add_routes(app: Any, service: Service) -> None:
    from starlette.requests import Request
    from starlette.responses import Response

    def json_of(content: Mapping[str, Any], status: int = 200) -> Response:
        return Response(json.dumps(content, separators=(",", ":")), status, media_type="application/json")

    async def predict(request: Request) -> Response:
        import orjson

        return Response(orjson.dumps(await service.predict(request)), media_type="application/json")

    async def recommend(request: Request) -> Response:
        return json_of(await service.recommend(request))

    async def status(request: Request) -> Response:
        return json_of(service.status(request))

    async def metadata(request: Request) -> Response:
        return json_of(service.metadata(request))

    async def health(request: Request) -> Response:
        return json_of(service.health())

    async def ready(request: Request) -> Response:
        return json_of(*service.ready())

    async def metrics(request: Request) -> Response:
        content, kind = service.metrics.text()
        return Response(content, media_type=kind)

    model = "/v1/models/{name}"
    for path in (model, f"{model}/versions/{{version}}"):
        app.add_route(f"{path}:predict", predict, methods=["POST"])
        app.add_route(f"{path}/metadata", metadata, methods=["GET"])
        app.add_route(path, status, methods=["GET"])
    app.add_route("/recommend", recommend, methods=["POST"])
    for path, route in (("/health", health), ("/ready", ready), ("/metrics", metrics)):
        app.add_route(path, route, methods=["GET"])


def _add_demo(app: Any, service: Service) -> None:
    """The page of `--demo`: `mtl_zoo.service.demo` mounts it."""
    if not service.settings.demo:
        return
    if importlib.util.find_spec("mtl_zoo.service.demo") is None:
        raise ValueError("`demo` must be False: this installation has no demo page.")
    importlib.import_module("mtl_zoo.service.demo").mount(app, service)
    logs.event("demo_page")
