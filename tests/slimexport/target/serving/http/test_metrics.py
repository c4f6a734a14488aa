"""Prometheus reads what a runtime did, counted here from the same events by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from slimexport.target.serving.answer import Event
from tests.support.serving_fakes import SNAPSHOT, FakeRuntime

prometheus = pytest.importorskip("prometheus_client.parser", reason="pip install '.[serve]'")
module = pytest.importorskip("slimexport.target.serving.http.metrics")


def event(number: int, width: str, latency_ms: float = 3.0, slack_ms: float = 5.0, outcome: str = "answered") -> Event:
    return Event(number, float(number), width, 2, 4, 1.0, latency_ms - 1.0, latency_ms, slack_ms, outcome)


EVENTS = [
    event(1, "0.5"),
    event(2, "1", latency_ms=40.0),
    event(3, "1", latency_ms=80.0, slack_ms=-30.0),
    event(4, "", outcome="late", slack_ms=-0.1),
    event(5, "1", outcome="failed"),
]


def read(metrics: Any) -> dict[str, float]:
    """Every sample of the text, `name{label=value}` to its number."""
    values = {}
    for family in prometheus.text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return values


def test_every_event_is_counted_once_however_often_it_is_read() -> None:
    runtime = FakeRuntime(events=EVENTS[:2])
    metrics = module.Metrics(runtime)
    read(metrics)
    runtime.events = EVENTS
    metrics.update()
    values = read(metrics)
    assert values["slimexport_requests_total{outcome=answered,width=0.5}"] == 1
    assert values["slimexport_requests_total{outcome=answered,width=1}"] == 2
    assert values["slimexport_requests_total{outcome=late,width=}"] == 1
    assert values["slimexport_requests_total{outcome=failed,width=1}"] == 1
    assert values["slimexport_images_total{width=1}"] == 4
    assert values["slimexport_deadline_misses_total{how=refused}"] == 1
    assert values["slimexport_deadline_misses_total{how=answered late}"] == 1


def test_requests_whose_clients_went_are_an_outcome_of_their_own() -> None:
    runtime = FakeRuntime(events=EVENTS, snapshot=replace(SNAPSHOT, cancelled=2))
    metrics = module.Metrics(runtime)
    assert read(metrics)["slimexport_requests_total{outcome=cancelled,width=}"] == 2
    runtime.snapshot = replace(SNAPSHOT, cancelled=5)
    metrics.update()
    assert read(metrics)["slimexport_requests_total{outcome=cancelled,width=}"] == 5


def test_times_are_seconds_by_width_of_what_was_answered() -> None:
    values = read(module.Metrics(FakeRuntime(events=EVENTS)))
    assert values["slimexport_latency_seconds_sum{width=1}"] == pytest.approx(0.120)
    assert values["slimexport_latency_seconds_count{width=1}"] == 2
    assert values["slimexport_latency_seconds_bucket{le=0.05,width=1}"] == 1
    assert values["slimexport_queued_seconds_sum{width=1}"] == pytest.approx(0.002)
    assert values["slimexport_computed_seconds_sum{width=0.5}"] == pytest.approx(0.002)
    assert values["slimexport_batch_images_sum{width=0.5}"] == 4


def test_accuracy_given_is_the_manifest_s_of_the_widths_that_answered() -> None:
    values = read(module.Metrics(FakeRuntime(events=EVENTS)))
    assert values["slimexport_accuracy_given_count"] == 3
    assert values["slimexport_accuracy_given_sum"] == pytest.approx(0.625 + 0.75 + 0.75)


def test_what_is_now_is_asked_for_when_it_is_read() -> None:
    runtime = FakeRuntime()
    metrics = module.Metrics(runtime)
    values = read(metrics)
    assert values["slimexport_queue_images"] == 7
    assert values["slimexport_queue_limit_images"] == 10
    assert values["slimexport_slo_seconds"] == pytest.approx(0.05)
    assert (values["slimexport_ready"], values["slimexport_stale"]) == (1, 0)
    assert values["slimexport_refused_total{reason=full}"] == 2
    assert values["slimexport_width_open{width=1}"] == 1
    assert values["slimexport_width_accuracy{width=0.5}"] == 0.625
    assert values["slimexport_expected_seconds{batch=2,width=0.5}"] == pytest.approx(0.0015)
    runtime.take_out("1", "it hangs")
    values = read(metrics)
    assert values["slimexport_width_open{width=1}"] == 0
    assert values["slimexport_width_out{reason=it hangs,width=1}"] == 1


def test_responses_are_counted_once_by_their_status() -> None:
    metrics = module.Metrics(FakeRuntime())
    for statuses, ok in (([200, 200, 503], 2), ([200], 3), ([], 3)):
        metrics.responded.update(statuses)
        assert read(metrics)["slimexport_http_responses_total{status=200}"] == ok
    assert read(metrics)["slimexport_http_responses_total{status=503}"] == 1


def test_two_runtimes_of_one_process_count_apart() -> None:
    one, other = module.Metrics(FakeRuntime(events=EVENTS)), module.Metrics(FakeRuntime())
    assert "slimexport_images_total{width=1}" in read(one)
    assert "slimexport_images_total{width=1}" not in read(other)


def test_events_are_counted_though_nobody_reads_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's own record of them ends after 20,000."""
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    runtime = FakeRuntime(events=EVENTS[:1])
    metrics = module.Metrics(runtime)

    async def follow() -> None:
        following = asyncio.create_task(metrics.follow())
        while not metrics.registry.get_sample_value("slimexport_images_total", {"width": "0.5"}):
            await asyncio.sleep(0)
        following.cancel()

    asyncio.run(asyncio.wait_for(follow(), 60))
