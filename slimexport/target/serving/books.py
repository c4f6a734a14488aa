"""What a runtime keeps account of: how requests ended, the last of them one by one. Whoever uses it holds the runtime's
lock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from slimexport.target.serving.answer import Event, Snapshot, WidthState
from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.requests import Request, Waiting
from slimexport.target.serving.scheduling import Run

MOST_EVENTS = 20_000
SUBMITTED, ANSWERED, IN_TIME, FAILED = "submitted", "answered", "in_time", "failed"
REFUSED = LATE, FULL, CLOSED = ("late", "full", "closed")


class Books:
    """Counts by those words, answers by width, and the last events. Times are of the clock that `began_s` is of."""

    def __init__(self, began_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._unsettled: list[tuple[Run, str, str, float, float]] = []
        self._began_s = began_s
        self._number = 0
        self._events: deque[tuple[Any, ...]] = deque(maxlen=MOST_EVENTS)  # the fields of `Event`: few are ever looked at

    def count(self, outcome: str) -> None:
        """A request that came, or one that ended and is in no event."""
        self.counts[outcome] += 1

    def refuse(self, reason: str) -> None:
        """A request that came, and was not taken."""
        self.count(SUBMITTED)
        self.count(reason)

    def ran(self, run: Run, outcome: str, label: str, began_s: float, ended_s: float) -> None:
        """The requests of a run ended. They are counted when somebody asks, or `settle` is called, and no answer waits."""
        self._unsettled.append((run, outcome, label, began_s, ended_s))

    def settle(self) -> None:
        """Count what ended."""
        for run, outcome, label, began_s, ended_s in self._unsettled:
            for request in run.requests:
                self._add(request, outcome, label, run.images, began_s, ended_s)
                self.counts[IN_TIME] += outcome == ANSWERED and ended_s <= request.due_s
            if outcome == ANSWERED:
                self._answers[label] += len(run.requests)
        self._unsettled.clear()

    @property
    def answers(self) -> Counter[str]:
        """By width."""
        self.settle()
        return self._answers

    def late(self, request: Request, now_s: float) -> None:
        """A request was refused, as no width would have ended in time."""
        self.settle()
        self._add(request, LATE, "", 0, now_s, now_s)

    def _add(self, request: Request, outcome: str, label: str, batch: int, began_s: float, ended_s: float) -> None:
        self._number += 1
        self.counts[outcome] += 1
        queued, computed, latency = began_s - request.submitted_s, ended_s - began_s, ended_s - request.submitted_s
        times = (1e3 * queued, 1e3 * computed, 1e3 * latency, 1e3 * (request.due_s - ended_s))
        self._events.append((self._number, ended_s - self._began_s, label, request.size, batch, *times, outcome))

    def snapshot(self, waiting: Waiting, widths: Sequence[WidthState], stale: bool, latencies: Latencies) -> Snapshot:
        """All of it, with what is now."""
        self.settle()
        counts = self.counts
        return Snapshot(
            submitted=counts[SUBMITTED],
            answered=counts[ANSWERED],
            in_time=counts[IN_TIME],
            failed=counts[FAILED],
            refused={reason: counts[reason] for reason in REFUSED},
            waiting=waiting.images,
            widths=tuple(widths),
            cancelled=waiting.cancelled,
            stale=stale,
            latencies_ms={
                label: dict(zip(latencies.batches, row, strict=True))
                for label, row in zip(latencies.widths, latencies.ms, strict=True)
            },
        )

    def since(self, number: int) -> list[tuple[Any, ...]]:
        """The fields of the events above a number, in order, as far as they are kept."""
        self.settle()
        fresh = list(islice(reversed(self._events), max(0, self._number - number)))
        return fresh[::-1]


def as_events(fields: list[tuple[Any, ...]]) -> list[Event]:
    """What `Books.since` gives, to read."""
    return [Event(*values) for values in fields]
