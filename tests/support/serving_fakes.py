"""A runtime that does what a test says, as far as the HTTP side knows runtimes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from slimexport.target.manifest import Manifest
from slimexport.target.serving.answer import Answer, Event, Snapshot, WidthInfo, WidthState
from slimexport.target.serving.policy import Latencies
from tests.support.bundle_helpers import artifact, manifest
from tests.support.http_serving import CLASSES, NETWORK, SIZE, Array, logits

LATENCIES = Latencies(("0.5", "1"), (1, 2, 4), ((1.0, 1.5, 2.0), (2.0, 3.0, 4.0)))

SNAPSHOT = Snapshot(
    submitted=9,
    answered=5,
    in_time=4,
    failed=1,
    refused={"late": 1, "full": 2, "closed": 3},
    waiting=7,
    widths=(WidthState("0.5", 0.625, 2), WidthState("1", 0.75, 3)),
    latencies_ms={"0.5": {1: 1.0, 2: 1.5}, "1": {1: 2.0}},
)


def answer(images: Array, **changes: Any) -> Answer:
    """What width 0.5 answers at once."""
    values: dict[str, Any] = {"output": logits(images, 0.5), "width": 0.5, "name": "0.5", "batch": len(images)}
    return Answer(**{**values, "queued_ms": 1.25, "computed_ms": 2.5, **changes})


def at_once(images: Array) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(answer(images))
    return future


def failing(error: Exception) -> Callable[[Array], Future[Answer]]:
    """Requests end with `error`: QueueFull and Closed at once, others in their future."""

    def submit(images: Array) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_exception(error)
        return future

    return submit


def _described() -> Manifest:
    files = [artifact(f"{NETWORK}_x0_5", 0.5), artifact(f"{NETWORK}_x1_0", 1.0)]
    return manifest(*files, network=NETWORK, image_size=SIZE, classes=CLASSES)


@dataclass
class FakeRuntime:
    """`answers` is asked for every request's future. `came` holds images and deadlines, `arrived` is set at the first."""

    answers: Callable[[Array], Future[Answer]] = at_once
    manifest: Manifest = field(default_factory=_described)
    latencies: Latencies = LATENCIES
    slo_ms: float = 50.0
    queue: int = 10
    ready: bool = True
    backend: str = "fake"
    events: list[Event] = field(default_factory=list)
    widths: tuple[WidthInfo, ...] = (
        WidthInfo("0.5", 0.5, f"{NETWORK}_x0_5", 0.625),
        WidthInfo("1", 1.0, f"{NETWORK}_x1_0", 0.75),
    )
    snapshot: Snapshot = SNAPSHOT
    came: list[tuple[Array, float | None]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def submit(self, image: Array, deadline_ms: float | None = None) -> Future[Answer]:
        self.came.append((image, deadline_ms))
        self.arrived.set()
        return self.answers(image)

    def stats(self) -> Snapshot:
        return self.snapshot

    def recent(self, since: int = 0) -> list[Event]:
        return [event for event in self.events if event.number > since]

    def take_out(self, label: str, reason: str) -> None:
        """From now on a width is out."""
        widths = tuple(replace(width, out=reason) if width.label == label else width for width in self.snapshot.widths)
        self.snapshot = replace(self.snapshot, widths=widths)
        self.ready = any(not width.out for width in widths)
