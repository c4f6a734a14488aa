"""What became of every request of a run: columns that are as long as the trace from the start, so that an hour of them takes
no memory that was not there at its beginning; and nothing is kept of an answer but its figures."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array

ANSWERED, LATE, FULL, FAILED, LOST = OUTCOMES = ("answered", "late", "full", "failed", "lost")
PLACES = 3  # of milliseconds in a file: a microsecond


@dataclass(frozen=True)
class Samples:
    """A request each, in the order of the trace. `intended_s`: when it was to be sent; `late_ms`: how long after that it was;
    `latency_ms` from the intended time to the answer, `queued_ms` and `computed_ms` as the answer says, NaN where there is
    none. `outcome`: its place in OUTCOMES; `width`: in `labels`, -1 where none computed it. `doubled` counts ends beyond the
    first."""

    intended_s: Array
    late_ms: Array
    latency_ms: Array
    queued_ms: Array
    computed_ms: Array
    batch: Array
    outcome: Array
    width: Array
    labels: tuple[str, ...]
    doubled: int = 0

    def __len__(self) -> int:
        return len(self.intended_s)

    def of(self, outcome: str) -> Array:
        """Which requests ended so: bool [N]."""
        return self.outcome == OUTCOMES.index(outcome)

    def in_time(self, slo_ms: float) -> Array:
        """Which requests were answered within so many milliseconds of the time at which they were to be sent: bool [N]."""
        return self.of(ANSWERED) & (self.latency_ms <= slo_ms)

    def as_dict(self) -> dict[str, Any]:
        """For a line of results: columns, NaN as null, times to the microsecond."""
        columns = {
            "intended_s": np.round(self.intended_s, 6),
            **{name: np.round(getattr(self, name), PLACES) for name in ("late_ms", "latency_ms", "queued_ms", "computed_ms")},
            **{name: getattr(self, name) for name in ("batch", "outcome", "width")},
        }
        return {"outcomes": OUTCOMES, "labels": self.labels, **columns, "doubled": self.doubled}


def joined(parts: Sequence[Samples]) -> Samples:
    """The samples of several runs together; labels may differ."""
    labels = tuple(dict.fromkeys(label for part in parts for label in part.labels))
    widths = []
    for part in parts:
        places = np.array([*(labels.index(label) for label in part.labels), -1])
        widths.append(places[part.width])
    columns = ("intended_s", "late_ms", "latency_ms", "queued_ms", "computed_ms", "batch", "outcome")
    return Samples(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        width=np.concatenate(widths),
        labels=labels,
        doubled=sum(part.doubled for part in parts),
    )


class Book:
    """Is told, from any thread, what becomes of the requests of a trace."""

    def __init__(self, intended_s: Array) -> None:
        count = len(intended_s)
        self._columns: Mapping[str, Array] = {
            "intended_s": np.asarray(intended_s, np.float64),
            **{name: np.full(count, np.nan) for name in ("late_ms", "latency_ms", "queued_ms", "computed_ms")},
            "batch": np.zeros(count, np.int32),
            "outcome": np.full(count, OUTCOMES.index(LOST), np.int8),
            "width": np.full(count, -1, np.int16),
        }
        self._labels: dict[str, int] = {}
        self._open, self._doubled = count, 0
        self._changed = threading.Condition()

    def sent(self, number: int, late_ms: float) -> None:
        """A request was sent, so long after it was to be."""
        self._columns["late_ms"][number] = late_ms

    def answered(self, number: int, latency_ms: float, label: str, batch: int, queued_ms: float, computed_ms: float) -> None:
        """A request was answered by a width, in a run of `batch` images."""
        with self._changed:
            if self._end(number, ANSWERED):
                columns = self._columns
                columns["latency_ms"][number] = latency_ms
                columns["queued_ms"][number], columns["computed_ms"][number] = queued_ms, computed_ms
                columns["batch"][number] = batch
                columns["width"][number] = self._labels.setdefault(label, len(self._labels))

    def refused(self, number: int, outcome: str) -> None:
        """A request ended as LATE, FULL or FAILED."""
        with self._changed:
            self._end(number, outcome)

    def _end(self, number: int, outcome: str) -> bool:
        """Whether it is the request's first end. The lock is held."""
        outcomes = self._columns["outcome"]
        if outcomes[number] != OUTCOMES.index(LOST):
            self._doubled += 1
            return False
        outcomes[number] = OUTCOMES.index(outcome)
        self._open -= 1
        if not self._open:
            self._changed.notify_all()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Whether every request ended, within so long; those that did not are lost."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_s)

    def samples(self) -> Samples:
        """What is known now."""
        with self._changed:
            columns = {name: column.copy() for name, column in self._columns.items()}
            return Samples(**columns, labels=tuple(self._labels), doubled=self._doubled)
