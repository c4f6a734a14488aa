"""A demonstration: requests of noise that this process sends to its own runtime, as many as a slider says.

They come when a Poisson process says (open loop): a runtime that falls behind gets no fewer of them, as users do not wait for
each other either.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from types import TracebackType

import numpy as np

from slimexport.target.serving.errors import Closed, Refused, RequestError
from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.runtime import Runtime

log = logging.getLogger(__name__)

LOAD = 0.6  # at first
MOST_RATE = 5000.0
MOST_LOAD = 4.0
LEAST_SLO_MS = 1.0
SLO_RANGE = 4.0  # the longest deadline that may be set, in those that the runtime began with
IMAGES = 8  # noise, sent in turn
MOST_BEHIND_S = 1.0  # of a process that stood still longer, the rest is not sent


def capacity(latencies: Latencies, width: int) -> float:
    """The most images a second that the width of that number computes, at the batch that is best for it."""
    return max(1e3 * batch / ms for batch, ms in zip(latencies.batches, latencies.ms[width], strict=True))


class Arrivals:
    """A Poisson process of `rate` a second, which can be changed. It has no clock: it is given the time, in seconds."""

    def __init__(self, rate: float, now_s: float, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.change(rate, now_s)

    def change(self, rate: float, now_s: float) -> None:
        """Another rate from now on. What came before says nothing about the next (the process has no memory)."""
        self.rate = rate
        self._next_s = self._after(now_s)

    def due(self, now_s: float) -> int:
        """How many have come since this was asked before."""
        if now_s - self._next_s > MOST_BEHIND_S:
            self._next_s = now_s - MOST_BEHIND_S
        count = 0
        while self._next_s <= now_s:
            count += 1
            self._next_s = self._after(self._next_s)
        return count

    def wait_s(self, now_s: float) -> float | None:
        """Until the next comes; None where none does."""
        return None if math.isinf(self._next_s) else max(0.0, self._next_s - now_s)

    def _after(self, time_s: float) -> float:
        return time_s + self._random.exponential(1 / self.rate) if self.rate > 0 else math.inf


class Demo:
    """A load on `runtime`, for a `with` block. `load`: in shares of what the widest width alone computes at most, by the
    latencies that the runtime begins with: a load that followed them from then on would hide that the runtime does."""

    def __init__(self, runtime: Runtime, load: float = LOAD, seed: int = 0) -> None:
        self.runtime = runtime
        latencies = runtime.latencies
        self.capacity = capacity(latencies, len(latencies.widths) - 1)
        self.most_slo_ms = SLO_RANGE * runtime.slo_ms
        shape = runtime.manifest.input.input_shape
        self._images = list(np.random.default_rng(seed).standard_normal((IMAGES, *shape), dtype=np.float32))
        self.load = _within("load", load, 0.0, MOST_LOAD, "")
        self._arrivals = Arrivals(self.rate, time.monotonic(), seed)
        self._sent = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send_all, name="slimexport demo", daemon=True)

    @property
    def rate(self) -> float:
        """Requests a second, of one image: of networks that are quicker than this process sends, MOST_RATE."""
        return min(MOST_RATE, self.load * self.capacity)

    def change(self, load: float | None = None, slo_ms: float | None = None) -> None:
        """Another load, another deadline, or both. RequestError for values beyond the sliders', and then nothing changes."""
        new_load = None if load is None else _within("load", load, 0.0, MOST_LOAD, "")
        new_slo_ms = None if slo_ms is None else _within("slo_ms", slo_ms, LEAST_SLO_MS, self.most_slo_ms, " milliseconds")
        if new_slo_ms is not None:
            self.runtime.slo_ms = new_slo_ms
        if new_load is not None:
            with self._changed:
                self.load = new_load
                self._arrivals.change(self.rate, time.monotonic())
                self._changed.notify()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Send nothing more; nothing happens the second time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Demo:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (count := self._arrivals.due(time.monotonic())):
                    self._changed.wait(self._arrivals.wait_s(time.monotonic()))
                if self._closed:
                    return
            for _ in range(count):
                if not self._send():
                    return

    def _send(self) -> bool:
        """One request; nobody reads its answer. Whether the runtime takes more."""
        self._sent += 1
        try:
            self.runtime.submit(self._images[self._sent % IMAGES])
        except Closed as error:
            log.info("the demonstration ends: %s", error)
            return False
        except Refused:
            pass  # the queue is full: counted by the runtime, and shown
        return True


def _within(what: str, value: float, least: float, most: float, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(f"{what} {value!r}: expected a number from {least:g} to {most:g}{unit}.")
    return float(value)
