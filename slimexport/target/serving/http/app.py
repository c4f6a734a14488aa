"""The Open Inference Protocol (KServe v2) of a runtime, as a starlette application.

Requests are awaited on the event loop, not in threads: the runtime's futures wake it. A client that goes away takes its
request with it, as far as that was not begun. The deadline counts from when the request was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from slimexport.target.serving.answer import Answer
from slimexport.target.serving.http.bodies import Body, Room
from slimexport.target.serving.http.infer_request import HEADER_LENGTH, InferRequest, Repeated, header_length, read_request
from slimexport.target.serving.http.infer_response import VERSION, write_response
from slimexport.target.serving.http.metadata import Limits, model_metadata, readiness, server_metadata
from slimexport.target.serving.http.metrics import Metrics
from slimexport.target.serving.http.refusals import Refusal, refusal_of
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.untrusted.quoting import quoted

SMALL = 1 << 16  # bytes of JSON that are parsed without leaving the event loop
LEAST_MS = 1e-3  # a deadline that has passed: the runtime refuses it, and counts it
GONE = 499  # nobody reads it: what logs and metrics call a client that closed its request


def make_app(runtime: Runtime, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """An application that serves `runtime`, which stays its caller's to close, and `routes` beside it."""
    service = Service(runtime)
    model = "/v2/models/{name}"
    versioned = model + "/versions/{version}"
    own = [
        Route("/v2", service.server),
        Route("/v2/health/live", service.live),
        Route("/v2/health/ready", service.ready),
        *(Route(path, service.model) for path in (model, versioned)),
        *(Route(f"{path}/ready", service.model_ready) for path in (model, versioned)),
        *(Route(f"{path}/infer", service.infer, methods=["POST"]) for path in (model, versioned)),
        Route("/metrics", service.metrics_text),
    ]
    return Application(service, [*own, *routes])


class Application(Starlette):
    """Starlette, past whose middleware and routes goes what is asked for most: they take longer than the rest of a request."""

    def __init__(self, service: Service, routes: Sequence[BaseRoute]) -> None:
        handlers: Any = {HTTPException: _as_json, Refusal: _as_refusal}
        super().__init__(routes=routes, lifespan=service.lifespan, exception_handlers=handlers)
        self._service, self._most = service, f"/v2/models/{service.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._most and scope["method"] == "POST":
            scope["path_params"] = {"name": self._service.name}
            response = await self._service.infer(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class Service:
    """What the routes do."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.manifest = runtime, runtime.manifest
        self.name = self.manifest.source.network
        self.metrics = Metrics(runtime)
        self.limits = Limits.of(self.manifest, runtime.latencies.largest)
        self.room = Room(self.limits.room(runtime.queue))
        self._requests = Repeated(self.manifest, self.limits.largest)
        self._parser = ThreadPoolExecutor(1, "slimexport parses")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(self.metrics.follow())
        try:
            yield
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            self._parser.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------------------------------------- what it is

    async def server(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse(readiness(self.runtime), 200 if self.runtime.ready else 503)

    async def model(self, request: Request) -> Response:
        self._check_model(request)
        return JSONResponse(model_metadata(self.manifest, self.runtime.backend))

    async def model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return JSONResponse({"name": self.name, **readiness(self.runtime)}, 200 if self.runtime.ready else 503)

    async def metrics_text(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def _check_model(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        if name != self.name:
            raise Refusal(404, f"model {quoted(name)} is not here. This serves {self.name!r}.")
        if version != VERSION:
            raise Refusal(404, f"version {quoted(version)} of model {self.name!r} is not here. It has version {VERSION}.")

    # -------------------------------------------------------------------------------------------------------- inference

    async def infer(self, request: Request) -> Response:
        try:
            response = await self._infer(request)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Exception as error:  # whatever it is, its client is told in the protocol's form
            response = as_response(refusal_of(error))
        self.metrics.responses.labels(response.status_code).inc()
        return response

    async def _infer(self, request: Request) -> Response:
        self._check_model(request)
        if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
            raise Refusal(415, f"a body in {quoted(encoding)}, which is not served. Send it as it is.")
        json_bytes = header_length(request.headers.get(HEADER_LENGTH))
        body = Body(self.room, self.limits.most(json_bytes), self.limits.why(json_bytes))
        with body.held():
            content = await body.read(request, json_bytes or 0)
            began = time.perf_counter()
            asked = await self._parsed(content, json_bytes)
            del content  # the images are what is left of it
            within_ms = self.runtime.slo_ms if asked.deadline_ms is None else asked.deadline_ms
            future = self.runtime.submit(asked.images, left_ms(within_ms, time.perf_counter() - began))
            answer = await _answer(future, request.receive)
        written = write_response(self.name, asked, answer)
        headers = None if written.json_bytes is None else {HEADER_LENGTH: str(written.json_bytes)}
        return Response(written.content, headers=headers, media_type=written.media_type)

    async def _parsed(self, content: memoryview, json_bytes: int | None) -> InferRequest:
        """The request. Long JSON is parsed in a thread, one at a time, so that others' requests go on."""
        if (len(content) if json_bytes is None else json_bytes) <= SMALL:
            return self._requests.read(content, json_bytes)
        arguments = (content, json_bytes, self.manifest, self.limits.largest)
        return await asyncio.get_running_loop().run_in_executor(self._parser, read_request, *arguments)


def left_ms(within_ms: float, passed_s: float) -> float:
    """Of a deadline, once a request is parsed."""
    return max(LEAST_MS, within_ms - 1e3 * passed_s)


async def _answer(future: Future[Answer], receive: Receive) -> Answer:
    """The answer; ClientDisconnect where the client goes away before it is there. The future is cancelled then, as it is where
    the server ends."""
    loop = asyncio.get_running_loop()
    first = loop.create_future()  # the answer is there, or nobody waits for it

    def wake(_: object = None) -> None:
        if not first.done():
            first.set_result(None)

    def tell(_: object) -> None:
        """On the thread that computes."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    going = asyncio.ensure_future(_gone(receive))
    going.add_done_callback(wake)
    try:
        await first
        if not future.done():
            raise ClientDisconnect
        return future.result()
    finally:
        going.cancel()
        if not future.done():
            future.cancel()


async def _gone(receive: Receive) -> None:
    """Until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def as_response(refusal: Refusal) -> Response:
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


async def _as_refusal(request: Request, error: Any) -> Response:
    return as_response(error)


async def _as_json(request: Request, error: Any) -> Response:
    """What starlette refuses: a path or a method that is not served."""
    return as_response(
        Refusal(error.status_code, f"{request.method} {quoted(request.url.path)}: {error.detail}.", error.headers)
    )
