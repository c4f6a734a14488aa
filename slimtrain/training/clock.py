"""How fast a run is, how long it waits for data, and how long it will take. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from slimtrain.base.text import duration

T = TypeVar("T")


class Clock:
    """Times the steps since the last `restart`; `step` of `total` are done, of `batch_size` images each."""

    def __init__(self, step: int, total: int, batch_size: int) -> None:
        self.total, self.batch_size = total, batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin anew: after a test, which is no training."""
        self.step = step
        self.began = self.last = time.perf_counter()
        self.waited = 0.0

    def watch(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time until each comes counts as waiting."""
        while True:
            before = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield batch

    def done(self) -> None:
        """A step has been done."""
        self.last = time.perf_counter()

    @property
    def waiting(self) -> float:
        """The share of time spent waiting for data."""
        return self.waited / max(self.last - self.began, 1e-9)

    def images_per_s(self, step: int) -> float:
        """Images per second, over all processes."""
        return (step - self.step) * self.batch_size / max(self.last - self.began, 1e-9)

    def describe(self, step: int) -> str:
        """`512 images/s  data 3%  0:41 left`."""
        rate = self.images_per_s(step)
        left = (self.total - step) * self.batch_size / rate if rate else 0.0
        return f"{rate:.0f} images/s  data {self.waiting:.0%}  {duration(left)} left"
