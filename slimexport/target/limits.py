"""How much time and memory a bundle's file may take where it runs for the first time: what its entry in the manifest explains,
and then some. A file that takes more is not what the manifest says, or nothing that this machine should run on.

Memory is limited for the whole process, as systems know nothing finer, and so only while no other thread of it could be hit;
where there are no such limits (outside Linux), it is not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slimexport.target.manifest import Artifact

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SPARE_S = 10.0
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


@contextmanager
def time_limited(stop: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `stop`, from another thread, if the block takes longer."""
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
