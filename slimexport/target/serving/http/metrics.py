"""What a runtime does, for Prometheus. Requests are counted from the runtime's own record of them, so that those that came
another way than HTTP count too."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slimexport.target.serving.answer import Event
from slimexport.target.serving.runtime import Runtime

EVERY_S = 1.0  # the runtime's record is long, but not endless
SECONDS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    5.0,
)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
ANSWERED, LATE, CANCELLED = "answered", "late", "cancelled"


class Metrics:
    """The metrics of one runtime, in a registry of their own."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registry = CollectorRegistry()
        self._seen = self._cancelled = 0
        self._accuracies = {info.label: info.accuracy for info in runtime.widths}
        of_width: dict[str, Any] = {"labelnames": ("width",), "registry": self.registry}
        self.requests = Counter(
            "slimexport_requests",
            "Requests by what became of them (answered; late: refused, as it would have been; failed; cancelled) and width.",
            ("outcome", "width"),
            registry=self.registry,
        )
        self.images = Counter("slimexport_images", "Images answered.", **of_width)
        self.misses = Counter(
            "slimexport_deadline_misses",
            "Requests that missed their deadline: refused, or answered after it.",
            ("how",),
            registry=self.registry,
        )
        self.accuracy = Summary(
            "slimexport_accuracy_given",
            "Accuracy of the width that answered, as the manifest knows it; the mean is sum over count.",
            registry=self.registry,
        )
        self.latency = Histogram(
            "slimexport_latency_seconds", "From a request's submission to its answer.", buckets=SECONDS, **of_width
        )
        self.queued = Histogram("slimexport_queued_seconds", "Of it, the time that it waited.", buckets=SECONDS, **of_width)
        self.computed = Histogram("slimexport_computed_seconds", "Of it, the time of its run.", buckets=SECONDS, **of_width)
        self.batch = Histogram(
            "slimexport_batch_images", "Images of the run that answered a request.", buckets=IMAGES, **of_width
        )
        self.responses = Counter(
            "slimexport_http_responses",
            "Responses to requests for inference, by HTTP status.",
            ("status",),
            registry=self.registry,
        )
        self.responded: collections.Counter[int] = collections.Counter()  # by status, since the last update
        self.registry.register(State(runtime))

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        self.update()
        return generate_latest(self.registry)

    def update(self) -> None:
        """Count what happened since the last time."""
        for event in self.runtime.recent(self._seen):
            self._seen = event.number
            self._count(event)
        cancelled = self.runtime.stats().cancelled  # no event: such a request has no end of its own on the runtime's clock
        self.requests.labels(CANCELLED, "").inc(cancelled - self._cancelled)
        self._cancelled = cancelled
        for status, number in self.responded.items():
            self.responses.labels(status).inc(number)
        self.responded.clear()

    async def follow(self) -> None:
        """Update for ever, often enough that nothing is missed."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.update()

    def _count(self, event: Event) -> None:
        self.requests.labels(event.outcome, event.width).inc()
        if event.outcome == LATE:
            self.misses.labels("refused").inc()
        if event.outcome != ANSWERED:
            return
        if event.slack_ms < 0:
            self.misses.labels("answered late").inc()
        self.images.labels(event.width).inc(event.images)
        for histogram, ms in (
            (self.latency, event.latency_ms),
            (self.queued, event.queued_ms),
            (self.computed, event.computed_ms),
        ):
            histogram.labels(event.width).observe(ms / 1e3)
        self.batch.labels(event.width).observe(event.batch)
        if (accuracy := self._accuracies.get(event.width)) is not None:
            self.accuracy.observe(accuracy)


class State(Collector):
    """What is now, asked for when Prometheus asks."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def collect(self) -> Iterator[Metric]:
        now = self.runtime.stats()
        yield GaugeMetricFamily("slimexport_queue_images", "Images that wait.", now.waiting)
        yield GaugeMetricFamily("slimexport_queue_limit_images", "Images that may wait.", self.runtime.queue)
        yield GaugeMetricFamily("slimexport_slo_seconds", "The deadline of requests without one.", self.runtime.slo_ms / 1e3)
        yield GaugeMetricFamily("slimexport_ready", "Whether requests are taken.", float(self.runtime.ready))
        yield GaugeMetricFamily("slimexport_stale", "Whether the bundle on disk is another one by now.", float(now.stale))
        refused = CounterMetricFamily("slimexport_refused", "Requests that were not taken, or taken back.", labels=["reason"])
        for reason, number in now.refused.items():
            refused.add_metric([reason], number)
        yield refused
        is_open = GaugeMetricFamily("slimexport_width_open", "Whether a width serves.", labels=["width"])
        out = GaugeMetricFamily("slimexport_width_out", "Widths that were taken out, and why.", labels=["width", "reason"])
        accuracy = GaugeMetricFamily(
            "slimexport_width_accuracy",
            "Top-1, of a detector AP, as the manifest knows it.",
            labels=["width"],
        )
        for width in now.widths:
            is_open.add_metric([width.label], float(not width.out))
            if width.out:
                out.add_metric([width.label, width.out], 1.0)
            if width.accuracy is not None:
                accuracy.add_metric([width.label], width.accuracy)
        yield is_open
        yield out
        yield accuracy
        expected = GaugeMetricFamily(
            "slimexport_expected_seconds", "What a run takes, as policies are told.", labels=["width", "batch"]
        )
        for label, row in now.latencies_ms.items():
            for batch, ms in row.items():
                expected.add_metric([label, str(batch)], ms / 1e3)
        yield expected
