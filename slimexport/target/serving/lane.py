"""The thread that computes. One at a time does: widths share the device, and two runs at once would take twice as long, which
no table knows. One whose run does not come back is given up, and another takes its place."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from slimexport.target.serving.opening import OpenFile
from slimexport.target.serving.scheduling import Run
from slimtrain.base.process.leaving import leave_behind

LINGER_S = 0.001
EXIT_S, LOOK_S = 10.0, 0.01  # for a run that an interpreter's end meets; between two looks


class Job(NamedTuple):
    """A run on the file that computes it, since when, on the runtime's clock."""

    run: Run
    file: OpenFile
    since_s: float


class Lane:
    """A thread that takes jobs from `next_job` until that gives None, and hands each to `compute`. `job` is what it is at."""

    def __init__(self, next_job: Callable[[Lane], Job | None], compute: Callable[[Lane, Job], object]) -> None:
        self.job: Job | None = None
        self.asks: int | None = None  # the thread that is at the job in place of this one
        self.given_up = self.leaving = False  # the second: the interpreter ends, and no other thread may begin a job
        self._next_job, self._compute = next_job, compute
        self._waits = False
        self._process = os.getpid()
        self._nothing = threading.Lock()  # held while nobody said that there is something to do
        self._nothing.acquire()
        self._ended = threading.Event()  # a thread whose join was interrupted is not alive, as older Pythons say
        # a daemon: one that hangs ends no process
        self._thread = threading.Thread(target=self._work, name="slimexport computes", daemon=True)

    def start(self) -> None:
        atexit.register(self._let_exit)
        try:
            self._thread.start()
        except BaseException:
            atexit.unregister(self._let_exit)
            raise

    def wait(self) -> None:
        """Until `wake`, or at once where that was called since the last time. A bare lock: one thread waits, and a condition
        takes longer to wake it."""
        self._waits = True
        self._nothing.acquire()
        self._waits = False

    def linger(self) -> None:
        """Until `wake`, or for a moment: those whom an answer wakes need the interpreter, which this thread would keep.
        Whoever calls it looks for something to do afterwards."""
        self._nothing.acquire(timeout=LINGER_S)

    def wake(self) -> None:
        """There may be something to do. One thread calls it at a time."""
        if self._nothing.locked():
            self._nothing.release()

    def give_up(self) -> None:
        """It is not waited for any more, not even where the process ends."""
        self.given_up = True
        leave_behind(self._thread)
        self.wake()  # where another thread hangs in its place

    @property
    def is_here(self) -> bool:
        """Whether this is asked on its own thread, as by what is called back with an answer."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it ended."""
        if ended := self._ended.wait(timeout_s):
            self._thread.join()
        return ended

    def end_soon(self, within_s: float) -> None:
        """Wait as long for its end, and then not even where the process ends: one that came back from a library's code then
        would crash it."""
        try:
            self.join(within_s)
        finally:  # a further Ctrl-C, too
            if not self._ended.is_set():
                leave_behind(self._thread)

    def _work(self) -> None:
        try:
            while (job := self._next_job(self)) is not None:
                self._compute(self, job)
        finally:
            atexit.unregister(self._let_exit)
            self._ended.set()

    def _let_exit(self) -> None:
        """Of a process that ends while nobody closed the runtime, as by an error: what runs and waits is computed first, for
        EXIT_S at most. A thread that is in a library's code when the interpreter ends crashes it; one that waits here does
        not. The lane goes on, for one who closes the runtime later in the same end. A forked process has no such thread."""
        if self.given_up or self._process != os.getpid():
            return
        self.leaving, end = True, time.monotonic() + EXIT_S
        while not ((self._waits and self.job is None) or self._ended.wait(LOOK_S)) and time.monotonic() < end:
            pass
