"""Counts and the last events."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from slimexport.target.serving import books
from slimexport.target.serving.answer import WidthState
from slimexport.target.serving.books import ANSWERED, CLOSED, FAILED, FULL, SUBMITTED, Books, as_events
from slimexport.target.serving.requests import Request, Waiting
from slimexport.target.serving.scheduling import Run
from tests.support.serving_helpers import latencies


def run(*dues_s: float) -> Run:
    return Run(1, tuple(Request(np.zeros((number + 1, 1)), False, 10.0, due) for number, due in enumerate(dues_s)), 5.0)


def test_every_end_is_counted_and_told() -> None:
    kept = Books(began_s=9.0)
    for reason in (SUBMITTED, SUBMITTED, FULL, CLOSED, CLOSED):
        kept.count(reason)
    kept.ran(run(10.5, 11.5), ANSWERED, "0.5", 10.25, 11.0)
    kept.ran(run(12.0), FAILED, "1", 11.0, 11.25)
    kept.late(run(10.0).requests[0], 13.0)
    table = latencies([[1.0, 2.0]], [1, 2], ["0.5"])
    states = [WidthState("0.5", None, kept.answers["0.5"])]
    waiting = Waiting()
    for request in run(1.0, 2.0, 3.0, 4.0).requests:
        request.future.on_cancel = partial(waiting.cancel, waiting.add(request))
        if request.size == 2:
            request.future.cancel()
    snapshot = kept.snapshot(waiting, states, True, table)
    assert (snapshot.submitted, snapshot.answered, snapshot.in_time, snapshot.failed) == (2, 2, 1, 1)
    assert (snapshot.refused, snapshot.waiting, snapshot.cancelled) == ({"late": 1, "full": 1, "closed": 2}, 8, 1)
    assert snapshot.widths == (WidthState("0.5", None, 2),) and snapshot.stale
    assert snapshot.latencies_ms == {"0.5": {1: 1.0, 2: 2.0}}
    first, second, failed, late = as_events(kept.since(0))
    assert (first.number, first.at_s, first.width, first.images, first.batch) == (1, 2.0, "0.5", 1, 3)
    assert (first.queued_ms, first.computed_ms, first.latency_ms, first.slack_ms) == (250, 750, 1000, -500)
    assert (second.images, second.slack_ms, second.outcome, failed.outcome) == (2, 500, "answered", "failed")
    assert (late.width, late.batch, late.computed_ms, late.slack_ms, late.outcome) == ("", 0, 0, -3000, "late")


def test_the_last_events_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "MOST_EVENTS", 10)
    kept = Books(0.0)
    for _ in range(25):
        kept.ran(run(20.0), ANSWERED, "1", 11.0, 12.0)
    for since, numbers in ((0, range(16, 26)), (20, range(21, 26)), (25, []), (99, []), (-5, range(16, 26))):
        assert [event.number for event in as_events(kept.since(since))] == list(numbers)
