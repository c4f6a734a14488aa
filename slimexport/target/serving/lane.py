"""The thread that computes. One at a time does: widths share the device, and two runs at once would take twice as long, which no
table knows. One whose run does not come back is given up, and another takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable

from slimexport.target.serving.scheduling import Run


class Lane:
    """A thread that takes runs from `next_run` until that gives None, and hands each to `compute`. `running` is what it is at,
    with the time it began."""

    def __init__(self, next_run: Callable[[Lane], Run | None], compute: Callable[[Lane, Run], None], name: str) -> None:
        self.running: tuple[Run, float] | None = None
        self.given_up = False
        self._next_run, self._compute = next_run, compute
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)  # one that hangs ends no process

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (run := self._next_run(self)) is not None:
            self._compute(self, run)
