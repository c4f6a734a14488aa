"""How much memory the host has left, and how much of it this process holds: a kernel that runs out kills without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.machine.cgroups import memory_limit_mib
from benchmarks.machine.plain_files import field


class HostMemory:
    """Memory as Linux tells it under `root`; None where it does not."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def left_bytes(self) -> int | None:
        """What can still be had: of the machine or, where that is less, of this process's control group."""
        left, limit_mib = self._kib("proc/meminfo", "MemAvailable"), memory_limit_mib(self.root)
        if limit_mib is None:
            return left
        allowed = int(limit_mib * 2**20) - (self.held_bytes() or 0)
        return allowed if left is None else min(left, allowed)

    def held_bytes(self) -> int | None:
        """This process's resident memory."""
        return self._kib("proc/self/status", "VmRSS")

    def has_room(self, nbytes: int) -> bool:
        """Whether so much can be had at once, as far as the system tells, and gives it to one who does not use it."""
        left = self.left_bytes()
        if left is not None and left < nbytes:
            return False
        try:
            np.empty(nbytes, np.uint8)
        except (MemoryError, ValueError):  # ValueError: more than an array can have
            return False
        return True

    def _kib(self, path: str, name: str) -> int | None:
        """The value of a `name: 123 kB` line, in bytes."""
        number = (field(self.root / path, name) or "").partition(" ")[0]
        return int(number) * 1024 if number.isdigit() else None
