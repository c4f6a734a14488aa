"""The page at `/`: what a runtime does, live. Its files are in `page/` and ask for nothing from elsewhere; its figures come
from `/live`, which tells what was served since the last time."""

from __future__ import annotations

import secrets
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from slimexport.target.serving.errors import RequestError
from slimexport.target.serving.http.demo import LEAST_SLO_MS, MOST_LOAD, MOST_RATE, Demo, capacity
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.untrusted.json_text import JsonError, parse_json
from slimtrain.base.untrusted.quoting import quoted, reason

FILES = {
    "page.js": "text/javascript; charset=utf-8",
    "history.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "drawing.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
INDEX = "index.html"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MOST_EVENTS = 1000  # of an answer
MOST_BODY = 4096  # bytes of what a slider sends
COLUMNS = ("at_s", "width", "images", "latency_ms", "computed_ms", "slack_ms", "outcome")
REFUSED = -1  # in place of a width's number


def routes(runtime: Runtime, demo: Demo | None = None) -> list[Route]:
    """The page, its files, its figures, and of a demonstration its sliders."""
    server = secrets.token_hex(8)  # a page that was open before a restart begins anew

    def index(request: Request) -> Response:
        return _file(INDEX, "text/html; charset=utf-8")

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        return _file(name, FILES[name]) if name in FILES else _error(404, f"/page/{name}: there is no such file.")

    def figures(request: Request) -> Response:  # not async: a thread of starlette's, so that requests do not wait for it
        text = request.query_params.get("since", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            return _error(400, f"since {quoted(text)}: expected the number of an event, 0 or more.")
        return JSONResponse(
            {"server": server, **live(runtime, int(text), demo)}, headers={**HEADERS, "Cache-Control": "no-store"}
        )

    async def sliders(request: Request) -> Response:
        assert demo is not None
        try:
            demo.change(**await _wishes(request))
        except RequestError as error:
            return _error(400, str(error))
        return JSONResponse(_sliders(demo), headers=HEADERS)

    own = [Route("/", index), Route("/page/{name}", file), Route("/live", figures)]
    return own if demo is None else [*own, Route("/demo", sliders, methods=["POST"])]


def live(runtime: Runtime, since: int = 0, demo: Demo | None = None) -> dict[str, Any]:
    """What a runtime is, its counts, and its events whose number is above `since`, as rows of `COLUMNS`.

    At most `MOST_EVENTS` rows: of more events every second, third, ... is given, and `every` says how many a row stands for.
    `number` is the `since` of the next time.
    """
    events, snapshot, latencies = runtime.recent(since), runtime.stats(), runtime.latencies
    every = max(1, -(-len(events) // MOST_EVENTS))
    place = {state.label: index for index, state in enumerate(snapshot.widths)}
    serving = {label: index for index, label in enumerate(latencies.widths)}
    return {
        "network": runtime.manifest.source.network,
        "backend": runtime.backend,
        "accuracy_kind": "top-1" if runtime.manifest.detector is None else "average precision",
        "policy": runtime.policy if isinstance(runtime.policy, str) else getattr(runtime.policy, "__name__", "own"),
        "slo_ms": runtime.slo_ms,
        "ready": runtime.ready,
        "stale": snapshot.stale,
        "now_s": round(runtime.now(), 3),
        "waiting": snapshot.waiting,
        "queue": runtime.queue,
        "counts": {
            "submitted": snapshot.submitted,
            "answered": snapshot.answered,
            "in_time": snapshot.in_time,
            "failed": snapshot.failed,
            "refused": dict(snapshot.refused),
        },
        "widths": [
            {
                "label": state.label,
                "accuracy": state.accuracy,
                "answered": state.answered,
                "out": state.out,
                "image_ms": round(latencies.of(serving[state.label], 1), 3) if state.label in serving else None,
                "capacity": round(capacity(latencies, serving[state.label]), 1) if state.label in serving else None,
            }
            for state in snapshot.widths
        ],
        "number": events[-1].number if events else since,
        "every": every,
        "columns": COLUMNS,
        "events": [
            (
                round(event.at_s, 3),
                place.get(event.width, REFUSED),
                event.images,
                round(event.latency_ms, 2),
                round(event.computed_ms, 2),
                round(event.slack_ms, 2),
                event.outcome,
            )
            for event in events[every - 1 :: every]
        ],
        "demo": None if demo is None else _sliders(demo),
    }


def _sliders(demo: Demo) -> dict[str, float]:
    """Where they stand, and how far they go."""
    return {
        "load": demo.load,
        "most_load": MOST_LOAD,
        "capacity": demo.capacity,
        "mostRate": MOST_RATE,
        "slo_ms": demo.runtime.slo_ms,
        "least_slo_ms": LEAST_SLO_MS,
        "most_slo_ms": demo.most_slo_ms,
    }


async def _wishes(request: Request) -> dict[str, Any]:
    """What a slider says, {"load": 1.2, "slo_ms": 50} or one of both. RequestError otherwise.

    Another site's page cannot send `application/json` here without asking first (CORS), and is not allowed to.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"content type {quoted(kind)}: expected application/json.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise RequestError(f'a body of more than {MOST_BODY} bytes: expected {{"load": 1.2, "slo_ms": 50}}.')
    try:
        wishes = parse_json(body.decode("utf-8"), "the body")
    except (UnicodeDecodeError, JsonError) as error:
        raise RequestError(f"{reason(error)}.") from error
    known = isinstance(wishes, dict) and wishes and set(wishes) <= {"load", "slo_ms"}
    if not known or None in wishes.values():
        raise RequestError(f'{quoted(wishes)}: expected {{"load": 1.2, "slo_ms": 50}}, or one of both.')
    return wishes


def _file(name: str, kind: str) -> Response:
    """Of the package. Read every time: it is small, and a page that was changed is there at the next look."""
    content = resources.files("slimexport.target.serving.http").joinpath("page", name).read_bytes()
    return Response(content, media_type=kind, headers=HEADERS)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status, headers=HEADERS)
