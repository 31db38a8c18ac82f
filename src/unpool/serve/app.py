"""The ASGI application: routes, and errors as JSON with their status codes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unpool.errors import DataError, ImageError, OptionError, ShapeError
from unpool.serve.applications import ENDPOINTS, Models
from unpool.serve.engine import Engine
from unpool.serve.guard import LOOPBACK, Guard
from unpool.serve.intake import Intake
from unpool.serve.protocols import hugging_face, label_studio, open_inference
from unpool.serve.refusals import Refusal
from unpool.serve.service import Log, Service
from unpool.serve.studio import pages
from unpool.serve.studio.studio import Settings, Studio

T = TypeVar("T")

STATUSES: dict[type[Exception], int] = {
    ImageError: 415,
    OptionError: 422,
    ShapeError: 422,
    DataError: 400,
    MemoryError: 503,
    ClientDisconnect: 499,
}
"""The errors that a request can cause, and their codes; a `Refusal` has its own."""

_QUIET = ("/livez", "/readyz", "/metrics")  # are not logged


def explain(error: Exception) -> tuple[int, str, dict[str, str]]:
    """The status code of an error, its message, and headers.

    >>> explain(OptionError("got mode 'x'"))
    (422, "got mode 'x'", {})
    """
    if isinstance(error, Refusal):
        return error.status, str(error), error.headers
    if isinstance(error, HTTPException):
        return error.status_code, error.detail, dict(error.headers or {})
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return 503, "out of memory; send a smaller image", {}
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            return status, str(error), {}
    return 500, "a fault of the service; its log says more", {}


async def _explained(request: Request, error: Exception) -> Response:
    status, message, headers = explain(error)
    return JSONResponse({"error": message}, status, headers)


class _Counted:
    """Counts and logs the answers of an application."""

    def __init__(self, app: ASGIApp, service: Service, routes: Collection[str]) -> None:
        self.app, self.service, self.routes = app, service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 499  # of a client that left before the answer

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            route = _template(scope) if _template(scope) in self.routes else "other"
            seconds = time.perf_counter() - start
            self.service.metrics.count(route, status, seconds)
            if route not in _QUIET:
                self.service.log(f"{scope['method'][:10]} {route} {status} {1000 * seconds:.0f} ms")


def _template(scope: Scope) -> str:
    """The path of a request with the names of its parameters, which may be ids, in their place."""
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}")
    return path


def make_app(
    models: Models,
    *,
    hosts: Collection[str] = LOOPBACK,
    key: str | None = None,
    waiting: int = 8,
    seconds: float = 60.0,
    body_seconds: float = 20.0,
    failed: Callable[[], object] = lambda: None,
    log: Log = lambda line: None,
    load: Callable[[], object] | None = None,
    images: label_studio.Images | None = None,
    studio: Settings | None = None,
) -> "App":
    """Make the ASGI application.

    Args:
        models: the networks, loaded when the application starts, after the port is open.
        hosts: names and addresses by which it may be called.
        key: that requests must have; None for none.
        waiting: the largest number of requests that wait; others get 429.
        seconds: the longest time of a request, waiting included; then 504.
        body_seconds: in which a body must arrive; then 408.
        failed: called if the weights cannot be loaded; the error is in `service.engine.error`.
        log: called with a line for each answer.
        load: in place of `models.load`.
        images: what tasks of Label Studio may name; without, images within the request only.
        studio: settings of the studio, whose pages are added; without, there are none.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damaged forms are answered
    engine = Engine(load or models.load, waiting=waiting, seconds=seconds, failed=failed)
    service = Service(models, engine, Intake(body_seconds), log)
    routes: list[Route | Mount] = [
        Route("/livez", service.live),
        Route("/readyz", service.ready),
        Route("/metrics", service.measure),
        *(Route(path, service.apply, methods=["POST"]) for path in ENDPOINTS),
        *hugging_face.routes(service),
        *open_inference.routes(service),
        *label_studio.routes(service, images or label_studio.Images()),
    ]
    if studio is not None:
        routes += pages.routes(Studio(service, studio, lambda error: explain(error)[1]))
    return App(service, routes, hosts, key)


class App:
    """The ASGI application: what `make_app` makes.

    Args:
        service: what the routes share.
        routes: of Starlette.
        hosts: names and addresses by which it may be called.
        key: that requests must have; None for none.
    """

    def __init__(
        self,
        service: Service,
        routes: Sequence[Route | Mount],
        hosts: Collection[str],
        key: str | None,
    ) -> None:
        self.service = service
        kinds: tuple[type[Exception], ...] = (Refusal, HTTPException, *STATUSES, Exception)
        handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]]
        handlers = dict.fromkeys(kinds, _explained)
        inner = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        inner.router.redirect_slashes = False
        paths = [route.path for route in routes]
        self._app = _Counted(Guard(inner, hosts, key), service, paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.service.engine.start()
        try:
            yield
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.to_thread(self.service.engine.close)
