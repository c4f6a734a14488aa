"""How much time and memory a bundle's file may take where it runs for the first time: what its entry in the manifest explains,
and then some. A file that takes more is not what the manifest says, or nothing that this machine should run on.

Time is limited whatever runs the file: it runs in a thread, which is left behind where nothing stops it. Memory is limited for
the whole process, as systems know nothing finer, and so only while no other thread of it could be hit; where there are no such
limits (outside Linux), it is not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact
from slimtrain.base.process.leaving import leave_behind
from slimtrain.base.process.memory import tells_of_memory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

SPARE_S = 10.0
STOPPING_S = 1.0
SPARE_BYTES = 3 << 29  # 1.5 GiB: with what is not counted, as code and files that are mapped, less than 2 more than is usual
SLOWEST = 1e8  # multiply-accumulates a second: a tenth of what a single old core does
MOST_S = 600.0
MOST_BYTES = 8 << 30
THREAD_BYTES = 16 << 20  # a thread's stack and its share of the allocator
COPIES = 4  # of weights and activations, at the most: as they are read, laid out anew, and of the layers between
NUMBER_BYTES = 4
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Budget:
    """What a file's entry explains: `macs` and `activations` (None: not told) of one input, `file_bytes`."""

    macs: int
    activations: int | None
    file_bytes: int

    @staticmethod
    def of(artifact: Artifact) -> Budget:
        return Budget(artifact.macs, artifact.activations, artifact.size_bytes)

    def seconds(self, batch: int) -> float:
        """Of one run."""
        return SPARE_S + min(MOST_S, batch * self.macs / SLOWEST)

    def memory_bytes(self, batch: int) -> int:
        """Of one run, or, of a batch of 0, of loading."""
        activations = self.macs if self.activations is None else self.activations
        return min(MOST_BYTES, COPIES * (self.file_bytes + NUMBER_BYTES * batch * activations))


class FirstRuns:
    """Loading the file `name`, and its first run of every batch size, within a `budget`; without one, nothing is limited."""

    def __init__(self, name: str, budget: Budget | None) -> None:
        self.name, self.budget = name, budget
        self._known: set[int] = set()  # batch sizes that ran

    def load(self, work: Callable[[], T]) -> T:
        """What `work` gives. BundleError where it takes more than is explained."""
        return work() if self.budget is None else self._limited(self.budget, 0, work, _nothing)

    def run(self, batch: int, work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
        """The same of a run of a batch, which `stop` may end, called from another thread."""
        if self.budget is None or batch in self._known:
            return work()
        given = self._limited(self.budget, batch, work, stop or _nothing)
        self._known.add(batch)
        return given

    def _limited(self, budget: Budget, batch: int, work: Callable[[], T], stop: Callable[[], None]) -> T:
        seconds = budget.seconds(batch)
        with memory_limited(budget.memory_bytes(batch)) as limited:
            try:
                return in_time(work, seconds, stop)
            except TimeUp as error:
                what = f"a run of {batch}" if batch else "loading it"
                raise BundleError(
                    f"{self.name}: {what} took longer than {seconds:.0f} s, which its {budget.macs:,} multiply-accumulates do "
                    "not explain. Export again."
                ) from error
            except Exception as error:  # of whatever runs it
                if not (limited and tells_of_memory(error)):
                    raise
        raise BundleError(f"{self.name}: needs more memory than its entry in the manifest explains. Export again.")


class TimeUp(Exception):
    """Something took longer than it may."""


def in_time(work: Callable[[], T], seconds: float, stop: Callable[[], None]) -> T:
    """What `work` gives, or raises, in a thread of its own. TimeUp where that takes longer, once `stop` was called; where the
    thread does not end soon after, it is left behind (`slimtrain.base.process.leaving`). So it is where Ctrl-C comes: an
    interpreter that ends while a thread is in a library's code crashes when that comes back."""
    outcome: list[Callable[[], T]] = []
    ended = threading.Event()  # a thread whose join was interrupted is not alive, as older Pythons say

    def run() -> None:
        try:
            given = work()
        except BaseException as error:  # it is raised where it is asked for
            caught = error

            def fail() -> T:
                raise caught

            outcome.append(fail)
        else:
            outcome.append(lambda: given)
        ended.set()

    thread = threading.Thread(target=run, name="slimexport runs a file for the first time", daemon=True)
    try:
        thread.start()
        came = ended.wait(seconds)
    finally:
        if not ended.is_set():
            try:
                stop()
                ended.wait(STOPPING_S)
            finally:  # a further Ctrl-C, too
                if not ended.is_set():
                    leave_behind(thread)
    if not came:
        raise TimeUp
    thread.join()  # the next limit asks how many there are
    return outcome[0]()


def _nothing() -> None:
    """What nothing can stop."""


@contextmanager
def memory_limited(explained: int) -> Iterator[bool]:
    """Allocations in the block fail once they take SPARE_BYTES more than is `explained`; gives whether they do."""
    taken = _data_bytes()
    if resource is None or taken is None or threading.active_count() > 1:
        yield False
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = taken + explained + SPARE_BYTES + THREAD_BYTES * (os.cpu_count() or 1)
    if any(limit not in (resource.RLIM_INFINITY, -1) and limit <= most for limit in (soft, hard)):
        yield False
        return
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """What this process has of the memory that RLIMIT_DATA counts; None where it cannot be told."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmData:")]
    return 1024 * int(sizes[0]) if sizes else None
