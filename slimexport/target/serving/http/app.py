"""The Open Inference Protocol (KServe v2) of a runtime, as a starlette application: what a server and its model are. Requests
for inference are `inference`'s."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from slimexport.target.serving.http.inference import Inference, as_response
from slimexport.target.serving.http.metadata import check_model, model_metadata, readiness, server_metadata
from slimexport.target.serving.http.metrics import Metrics
from slimexport.target.serving.http.refusals import Refusal
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.untrusted.quoting import quoted


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
        *(Route(f"{path}/infer", service.inference, methods=["POST"]) for path in (model, versioned)),
        Route("/metrics", service.metrics_text),
    ]
    return Application(service, [*own, *routes])


class Application(Starlette):
    """Starlette, past whose middleware and routes goes what is asked for most."""

    def __init__(self, service: Service, routes: Sequence[BaseRoute]) -> None:
        handlers: Any = {HTTPException: _as_json, Refusal: _as_refusal}
        super().__init__(routes=routes, lifespan=service.lifespan, exception_handlers=handlers)
        self._infer, self._most = service.inference, f"/v2/models/{service.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._most and scope["method"] == "POST":
            await self._infer(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class Service:
    """What the routes do."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.manifest = runtime, runtime.manifest
        self.name = self.manifest.source.network
        self.metrics = Metrics(runtime)
        self.inference = Inference(runtime, self.metrics)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(self.metrics.follow())
        try:
            yield
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            self.inference.close()

    # ------------------------------------------------------------------------------------------------------- what it is

    async def server(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse(readiness(self.runtime), 200 if self.runtime.ready else 503)

    async def model(self, request: Request) -> Response:
        check_model(request.path_params, self.name)
        return JSONResponse(model_metadata(self.manifest, self.runtime.backend))

    async def model_ready(self, request: Request) -> Response:
        check_model(request.path_params, self.name)
        return JSONResponse({"name": self.name, **readiness(self.runtime)}, 200 if self.runtime.ready else 503)

    async def metrics_text(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _as_refusal(request: Request, error: Any) -> Response:
    return as_response(error)


async def _as_json(request: Request, error: Any) -> Response:
    """What starlette refuses: a path or a method that is not served."""
    return as_response(
        Refusal(error.status_code, f"{request.method} {quoted(request.url.path)}: {error.detail}.", error.headers)
    )
