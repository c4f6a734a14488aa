"""A trace sent to a runtime in this process, and the runtimes that policies are compared on.

One thread sends, and never waits for an answer: it sleeps until a request's time, submits it and goes on. More threads would
send no faster, as Python runs one at a time. Answers are noted by whoever hands them over, and nothing else is done there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from benchmarks.cells.cell import Array
from benchmarks.load.book import FAILED, FULL, LATE, Book, Samples
from benchmarks.load.figures import WidthFacts
from slimexport.target.serving.answer import Answer, WidthInfo
from slimexport.target.serving.errors import Closed, Late, QueueFull

LEAD_S = 0.05  # from the start of a run to its first second
LEAST_DEADLINE_MS = 1e-3  # of a request that is sent after its deadline: the runtime refuses it
GRACE_S = 60.0  # that answers may take after the last request was sent
IMAGES = 64

Clock = Callable[[], float]
OnAnswer = Callable[[int, Answer], None]


class Submitting(Protocol):
    """What takes requests: a Runtime, or what stands in for one."""

    def submit(self, image: Array, deadline_ms: float | None = None) -> Future[Answer]: ...


def images_of(shape: Sequence[int], seed: int, count: int = IMAGES, together: int = 1) -> list[Array]:
    """Noise in the form of a network's inputs, of `shape`; so many `together` have one more dimension. Requests take turns
    with them."""
    draw = np.random.default_rng([seed, 2])
    whole = tuple(shape) if together == 1 else (together, *shape)
    return [draw.standard_normal(whole, dtype=np.float32) for _ in range(count)]


def play(
    runtime: Submitting,
    times_s: Array,
    images: Sequence[Array],
    slo_ms: float,
    on_answer: OnAnswer | None = None,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    grace_s: float = GRACE_S,
) -> Samples:
    """Send request i at `times_s[i]` with image i, modulo their number, due `slo_ms` after that time; what became of each.

    `on_answer` is given the number and the answer of each that was answered, in the thread that hands it over. Raises
    RequestError for images that the runtime does not take."""
    book = Book(times_s)
    began = clock() + LEAD_S

    for number, at in enumerate(times_s.tolist()):
        due = began + at
        while (rest := due - clock()) > 0:
            sleep(rest)
        late_ms = 1e3 * (clock() - due)
        book.sent(number, late_ms)
        try:
            future = runtime.submit(images[number % len(images)], max(LEAST_DEADLINE_MS, slo_ms - late_ms))
        except QueueFull:
            book.refused(number, FULL)
        except Closed:  # or without a width
            book.refused(number, FAILED)
        else:
            future.add_done_callback(_Noting(book, number, due, clock, on_answer))
    book.wait(slo_ms / 1e3 + grace_s)
    return book.samples()


class _Noting:
    """What is done with a request's end; it keeps nothing of the answer."""

    __slots__ = ("book", "clock", "due", "number", "on_answer")

    def __init__(self, book: Book, number: int, due: float, clock: Clock, on_answer: OnAnswer | None) -> None:
        self.book, self.number, self.due, self.clock, self.on_answer = book, number, due, clock, on_answer

    def __call__(self, future: Future[Answer]) -> None:
        latency_ms = 1e3 * (self.clock() - self.due)
        error: Any = FAILED if future.cancelled() else future.exception()
        if error is not None:
            self.book.refused(self.number, LATE if isinstance(error, Late) else FAILED)
            return
        answer = future.result()
        if self.on_answer is not None:
            self.on_answer(self.number, answer)
        label = answer.name
        self.book.answered(self.number, latency_ms, label, answer.batch, answer.queued_ms, answer.computed_ms)


def facts_of(widths: Sequence[WidthInfo]) -> tuple[WidthFacts, ...]:
    """The open widths of a runtime."""
    return tuple(WidthFacts(info.label, info.width, info.accuracy) for info in widths)
