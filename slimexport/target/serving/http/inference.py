"""Requests for inference, as an ASGI application of their own: starlette's request, response, middleware and routes take
longer than all else that is done with one.

Requests are awaited on the event loop, not in threads: the runtime's futures wake it. A client that goes away takes its
request with it, as far as that was not begun. The deadline counts from when the request was there.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from slimexport.target.serving.answer import Answer
from slimexport.target.serving.http.bodies import COLLECTED, PARTS, Body, Room
from slimexport.target.serving.http.infer_request import HEADER_LENGTH, InferRequest, Repeated, header_length, read_request
from slimexport.target.serving.http.infer_response import Responses, Written
from slimexport.target.serving.http.metadata import Limits, check_model
from slimexport.target.serving.http.metrics import Metrics
from slimexport.target.serving.http.refusals import Refusal, refusal_of
from slimexport.target.serving.requests import Pending
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.untrusted.quoting import quoted

SMALL = 1 << 16  # bytes of JSON that are parsed without leaving the event loop
LEAST_MS = 1e-3  # a deadline that has passed: the runtime refuses it, and counts it
GONE = 499  # nobody reads it: what logs and metrics call a client that closed its request
GONE_AFTER_S = 0.005  # whether a client went is asked of requests that wait longer: a task each
NOTHING: dict[str, Any] = {}
LENGTH_NAME = HEADER_LENGTH.lower().encode()


class Inference:
    """What the path of `infer` does: path parameters `name` and `version` are checked where a route gave them."""

    def __init__(self, runtime: Runtime, metrics: Metrics) -> None:
        manifest = runtime.manifest
        self.runtime, self._manifest, self._metrics = runtime, manifest, metrics
        self._name = manifest.source.network
        self._limits = Limits.of(manifest, runtime.latencies.largest)
        self._room = Room(self._limits.room(runtime.queue))
        self._responses = Responses(self._name)
        self._requests = Repeated(manifest, self._limits.largest)
        self._parser = ThreadPoolExecutor(1, "slimexport parses")

    def close(self) -> None:
        """Parse nothing more."""
        self._parser.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            written = await self._infer(scope, receive)
        except ClientDisconnect:
            await self._refuse(Response(status_code=GONE), scope, receive, send)
        except Exception as error:  # whatever it is, its client is told in the protocol's form
            await self._refuse(as_response(refusal_of(error)), scope, receive, send)
        else:
            self._metrics.responded[200] += 1
            await send({"type": "http.response.start", "status": 200, "headers": _headers(written)})
            await send({"type": "http.response.body", "body": written.content})

    async def _refuse(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.responded[response.status_code] += 1
        await response(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive) -> Written:
        if (path := scope.get("path_params")) is not None:
            check_model(path, self._name)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if (encoding := headers.get(b"content-encoding", b"identity")) != b"identity":
            raise Refusal(415, f"a body in {quoted(encoding.decode('latin-1'))}, which is not served. Send it as it is.")
        json_bytes = header_length(headers.get(LENGTH_NAME))
        with Body(self._room, self._limits, json_bytes) as body:
            extension = scope.get("extensions", NOTHING).get(COLLECTED, NOTHING)
            content = await body.read(receive, headers.get(b"content-length"), extension.get(PARTS))
            began = time.perf_counter()
            if (len(content) if json_bytes is None else json_bytes) <= SMALL:
                asked = self._requests.read(content, json_bytes)
            else:
                asked = await self._parsed(content, json_bytes)
            del content  # the images are what is left of it
            within_ms = self.runtime.slo_ms if asked.deadline_ms is None else asked.deadline_ms
            future = self.runtime.submit(asked.images, left_ms(within_ms, time.perf_counter() - began))
            answer = await answer_of(future, receive)
        return self._responses.write(asked, answer)

    async def _parsed(self, content: memoryview, json_bytes: int | None) -> InferRequest:
        """Of long JSON, which is parsed in a thread, one at a time, so that others' requests go on."""
        arguments = (content, json_bytes, self._manifest, self._limits.largest)
        return await asyncio.get_running_loop().run_in_executor(self._parser, read_request, *arguments)


def left_ms(within_ms: float, passed_s: float) -> float:
    """Of a deadline, once a request is parsed."""
    return max(LEAST_MS, within_ms - 1e3 * passed_s)


async def answer_of(future: Future[Answer], receive: Receive) -> Answer:
    """The answer; ClientDisconnect where the client goes away before it is there. The future is cancelled then, as it is where
    the server ends."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[bool] = loop.create_future()  # whether the answer is there; else nobody waits for it
    going: asyncio.Task[None] | None = None
    answered = False

    def wake(there: bool) -> None:
        if not first.done():
            first.set_result(there)

    def stir() -> None:
        """On the thread that computes, as is `tell` after it: the loop is awake when that comes."""
        try:
            loop.call_soon_threadsafe(_nothing)
        except RuntimeError:  # it has ended, and whoever waited with it
            return

    def tell(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake, True)

    def look() -> None:
        nonlocal going
        going = loop.create_task(_gone(receive))
        going.add_done_callback(lambda _: wake(False))

    if isinstance(future, Pending):
        future.on_ran = stir
    future.add_done_callback(tell)
    later = loop.call_later(GONE_AFTER_S, look)
    try:
        answered = await first
        if not answered:
            raise ClientDisconnect
        return future.result()
    finally:
        later.cancel()
        if going is not None:
            loop.call_soon(going.cancel)  # once the answer is on its way
        if not answered:
            future.cancel()


def _nothing() -> None:
    pass


async def _gone(receive: Receive) -> None:
    """Until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def as_response(refusal: Refusal) -> Response:
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


def _headers(written: Written) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", written.media_type), (b"content-length", b"%d" % len(written.content))]
    if written.json_bytes is not None:
        headers.append((LENGTH_NAME, b"%d" % written.json_bytes))
    return headers
