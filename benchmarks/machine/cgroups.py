"""What this process's control groups allow it: CPU time and memory. A container with `--cpus 2` sees every core of its host.

Version 2 has one tree (`cpu.max`, `memory.max`), version 1 one per controller (`cpu.cfs_quota_us`, `memory.limit_in_bytes`). A
group is bound by all groups above it. Source: the kernel's admin-guide/cgroup-v2 and scheduler/sched-bwc.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from benchmarks.machine.plain_files import number, text, to_number

NO_LIMIT_BYTES = 2**60  # version 1 says "none" as the largest multiple of a page that a signed 64-bit number holds


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many cores' worth of time this process may use; None without a limit."""
    quotas = []
    for folder in _folders("cpu", root):
        words = (text(folder / "cpu.max") or "").split()
        quota, period = (to_number(words[0]), to_number(words[1])) if len(words) == 2 else (None, None)
        if quota is None:
            quota, period = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
        if quota is not None and period is not None and quota > 0 and period > 0:
            quotas.append(quota / period)
    return round(min(quotas), 3) if quotas else None


def memory_limit_mib(root: Path = Path("/")) -> float | None:
    """How much memory this process may use, in MiB; None without a limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [number(folder / name) for folder in _folders("memory", root) for name in names]
    finite = [limit for limit in limits if limit is not None and 0 < limit < NO_LIMIT_BYTES]
    return round(min(finite) / 2**20, 1) if finite else None


def quota_stops(root: Path = Path("/")) -> int | None:
    """How often this process's groups were stopped because their CPU time was used up, so far; None if not told."""
    stops = []
    for folder in _folders("cpu", root):
        lines = [line.split() for line in (text(folder / "cpu.stat") or "").splitlines()]
        stops += [int(line[1]) for line in lines if len(line) == 2 and line[0] == "nr_throttled" and line[1].isdigit()]
    return sum(stops) if stops else None


def _folders(controller: str, root: Path) -> list[Path]:
    """This process's group for `controller` and all above it."""
    top, unified = root / "sys/fs/cgroup", None
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            bases = [base for base in (top / names, top / controller) if os.path.isdir(base)]
            return _upwards(bases[0], path) if bases else []
        if hierarchy == "0" and not names:
            unified = path
    return _upwards(top, unified) if unified is not None else []


def _upwards(base: Path, path: str) -> list[Path]:
    """The group at `path` and those above it up to `base`. In a container the path may be the host's, and not there."""
    inner = PurePosixPath(path.lstrip("/"))
    parts = () if ".." in inner.parts else inner.parts
    return [base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
