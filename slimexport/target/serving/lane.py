"""The thread that computes. One at a time does: widths share the device, and two runs at once would take twice as long, which
no table knows. One whose run does not come back is given up, and another takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.scheduling import Run


@dataclass(frozen=True)
class Job:
    """A run on the file that computes it, since when, on the runtime's clock."""

    run: Run
    file: OpenFile
    since_s: float


class Lane:
    """A thread that takes jobs from `next_job` until that gives None, and hands each to `compute`. `job` is what it is at."""

    def __init__(self, next_job: Callable[[Lane], Job | None], compute: Callable[[Lane, Job], None]) -> None:
        self.job: Job | None = None
        self.given_up = False
        self._next_job, self._compute = next_job, compute
        # a daemon: one that hangs ends no process
        self._thread = threading.Thread(target=self._work, name="slimexport computes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether this is asked on its own thread, as by what is called back with an answer."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._next_job(self)) is not None:
            self._compute(self, job)
