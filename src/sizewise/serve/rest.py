"""The Open Inference Protocol over HTTP, and what stands beside it: metrics, the page, the OpenAPI document."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sizewise.errors import extra
from sizewise.serve import page
from sizewise.serve.batcher import Timing
from sizewise.serve.logs import log
from sizewise.serve.metrics import CONTENT_TYPE
from sizewise.serve.openapi import document
from sizewise.serve.refusals import Busy, Refusal, TooLarge, TooSlow, Unauthorized
from sizewise.serve.service import SMALL_BYTES, Service, is_large
from sizewise.serve.wire import HEADER_LENGTH, json_length, parse, render

with extra("serve", needed_for="serving a model"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

PUBLIC = ("/v2/health/", "/static/")
"""Where no token is asked for: probes have none, and the page asks for it itself."""

BODIES = 4
"""How many bodies of the largest size may be held at a time; the next request is refused."""


def application(service: Service) -> ASGIApp:
    """The ASGI application of a service."""
    endpoints = _Endpoints(service)
    handlers: Mapping[Any, Any] = {HTTPException: _unknown, Refusal: _refused, Exception: _failed}

    @asynccontextmanager
    async def watched(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()

    return _Gate(Starlette(routes=endpoints.routes(), exception_handlers=handlers, lifespan=watched), service)


@dataclass
class _Endpoints:
    service: Service
    held: int = 0
    """Bytes of all bodies that are being answered."""

    def routes(self) -> list[Route]:
        return [
            Route("/v2/models/{model}/infer", self.infer, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}/infer", self.infer, methods=["POST"]),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/{model}", self.model),
            Route("/v2/models/{model}/ready", self.model_ready),
            Route("/v2/models/{model}/versions/{version}", self.model),
            Route("/v2/models/{model}/versions/{version}/ready", self.model_ready),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/about/{model}", self.about),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            *(Route(path, _static(name)) for path, name in page.PATHS.items()),
        ]

    async def server(self, request: Request) -> Response:
        return JSONResponse(self.service.server_metadata())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self.service.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        return JSONResponse(self.service.model_metadata(*_asked(request)))

    async def model_ready(self, request: Request) -> Response:
        name, version = _asked(request)
        self.service.repository.find(name, version)
        ready = self.service.ready
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def index(self, request: Request) -> Response:
        return JSONResponse(self.service.repository.index())

    async def about(self, request: Request) -> Response:
        model = self.service.repository.find(*_asked(request)).model
        return JSONResponse(page.about(model))

    async def metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.render(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(document(self.service))

    async def infer(self, request: Request) -> Response:
        name, version = _asked(request)
        self.service.repository.find(name, version)  # before a long body is read for nobody
        with self._holding() as hold:
            try:
                body = await self._body(request, hold)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is left to read it
            length = request.headers.get(HEADER_LENGTH)
            asked = await _threaded(json_length(body, length) > SMALL_BYTES, lambda: parse(body, length))
            answer, timing = await self.service.infer(name, version, asked)
            content, head = await _threaded(is_large(dict(answer.values)), lambda: render(answer))
        return _response(content, head, timing)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """A function that is told of bytes that are held, and lets them go in the end."""
        mine = 0

        def hold(size: int) -> None:
            nonlocal mine
            if self.held + size > BODIES * self.service.options.max_body_bytes:
                raise Busy(f"the server holds {self.held} bytes of other requests, and no more may be held")
            mine += size
            self.held += size

        try:
            yield hold
        finally:
            self.held -= mine

    async def _body(self, request: Request, hold: Callable[[int], None]) -> bytes:
        """The whole body. One that is too large is read to its end but not kept: then every client gets the answer,
        unless it asked before sending."""
        most, seconds = self.service.options.max_body_bytes, self.service.options.limits.timeout_seconds
        if request.headers.get("expect") and int(request.headers.get("content-length", 0)) > most:
            raise TooLarge(f"the body has {request.headers['content-length']} bytes; at most {most} are accepted")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        hold(len(chunk))
                        chunks.append(chunk)
        except TimeoutError as error:
            if size <= most:
                raise TooSlow(f"{size} bytes of the body came within {seconds:g} s, and not all of them") from error
        if size > most:
            raise TooLarge(f"the body has {size} bytes; at most {most} are accepted")
        return b"".join(chunks)


class _Gate:
    """What happens to every request: the token is checked, its end is counted and logged, and a server that goes down
    asks clients to come back on another connection, so that none of theirs is closed under a request."""

    def __init__(self, inner: ASGIApp, service: Service) -> None:
        self._inner, self._service = inner, service
        self._counters = {status: service.metrics.requests.labels("http", str(status)) for status in (200, 400, 503)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._enter(scope, receive, sending)
        except Exception as error:
            log("request failed", logging.ERROR, error=error, method=scope["method"], path=scope["path"])
        self._count(status)
        if self._service.options.log_requests:
            took = round(1000 * (time.perf_counter() - began), 3)
            log("request", method=scope["method"], path=scope["path"], status=status, ms=took)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._service.options.token and not _is_public(scope["path"]):
            try:
                self._service.authorize(_header(scope, b"authorization"))
            except Unauthorized as refusal:
                await _refusal(refusal)(scope, receive, send)
                return
        await self._inner(scope, receive, send)

    def _count(self, status: int) -> None:
        counter = self._counters.get(status)
        if counter is None:
            counter = self._counters[status] = self._service.metrics.requests.labels("http", str(status))
        counter.inc()


def _is_public(path: str) -> bool:
    return path == "/" or path.startswith(PUBLIC)


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _asked(request: Request) -> tuple[str, str]:
    """Name and version in a request's path."""
    return request.path_params["model"], request.path_params.get("version", "")


async def _threaded(large: bool, work: Callable[[], T]) -> T:
    """Do what takes long beside the event loop, and the rest at once."""
    return await asyncio.to_thread(work) if large else work()


def _response(content: bytes, head: int | None, timing: Timing) -> Response:
    headers = {"Server-Timing": f"queue;dur={1000 * timing.queue:.3f}, inference;dur={1000 * timing.inference:.3f}"}
    if head is None:
        return Response(content, media_type="application/json", headers=headers)
    return Response(content, media_type="application/octet-stream", headers=headers | {HEADER_LENGTH: str(head)})


def _static(name: str) -> Callable[[Request], Any]:
    content, kind = page.read(name)

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=kind, headers=page.HEADERS)

    return endpoint


def _refusal(refusal: Refusal) -> Response:
    headers = {"Retry-After": str(refusal.retry_seconds)} if isinstance(refusal, Busy) else {}
    if isinstance(refusal, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    if isinstance(refusal, TooSlow):
        headers = {"Connection": "close"}  # the rest of the body may still come
    return JSONResponse({"error": refusal.message}, refusal.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _refusal(error)


async def _unknown(request: Request, error: Exception) -> Response:
    """An address or method that there is not."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the server failed: {type(error).__name__}: {error}"}, 500)
