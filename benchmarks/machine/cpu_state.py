"""What the CPU did over an interval: who kept its cores busy, what a hypervisor took, what slowed it down. From counters that
are read at both ends; nothing runs in between.

Time of *other* processes = busy time of all CPUs in /proc/stat, less the time of this process and of all its descendants (of
those that were waited for, their parent's counters tell it). Source: the kernel's proc(5).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine.cgroups import quota_stops
from benchmarks.machine.cpu_info import CPUS
from benchmarks.machine.plain_files import entries, number, text

TICKS_PER_S = 100  # of the counters in /proc, on every Linux that these networks run on
SHORTEST_S = 0.25  # counters step by a tick per core: over less than this, they tell little about a load
THERMAL, QUOTA = "cpu_thermal", "cpu_quota"


@dataclass(frozen=True)
class Counters:
    """Counters at a moment, `at` seconds of a steady clock; None where the system does not tell.

    `busy_s` and `steal_s`: of all CPUs together, in core-seconds; `own_s`: CPU time of this process and its descendants;
    `voluntary` and `involuntary`: context switches of this process; `thermal`: how often CPUs slowed down for heat; `quota`:
    how often the control group's CPU time was used up.
    """

    at: float
    busy_s: float | None = None
    steal_s: float | None = None
    own_s: float | None = None
    voluntary: int | None = None
    involuntary: int | None = None
    thermal: int | None = None
    quota: int | None = None


def read_counters(root: Path = Path("/"), pid: int | None = None, clock: Callable[[], float] = time.monotonic) -> Counters:
    """The counters now, of process `pid` (this one) and the whole machine."""
    at = clock()
    busy_s, steal_s = _busy_and_steal(root)
    own_s = _own(root, os.getpid() if pid is None else pid)
    voluntary, involuntary = _switches()
    return Counters(at, busy_s, steal_s, own_s, voluntary, involuntary, _thermal(root), quota_stops(root))


def between(before: Counters, after: Counters) -> dict[str, Any]:
    """What happened between two readings, with only the keys that could be read.

    `other_load`: how many cores other processes kept busy, on average; `steal`: how many cores' worth of time the hypervisor
    gave to others (both absent over less than SHORTEST_S); `voluntary_switches`, `involuntary_switches`; `throttle`:
    names of what slowed the CPU down (THERMAL, QUOTA).
    """
    elapsed = after.at - before.at
    changes: dict[str, Any] = {}
    busy, own, steal = (_less(getattr(after, name), getattr(before, name)) for name in ("busy_s", "own_s", "steal_s"))
    if elapsed >= SHORTEST_S:
        if busy is not None and own is not None:
            changes["other_load"] = round(max(0.0, busy - max(0.0, own)) / elapsed, 3)
        if steal is not None:
            changes["steal"] = round(max(0.0, steal) / elapsed, 3)
    for name in ("voluntary", "involuntary"):
        if (count := _less(getattr(after, name), getattr(before, name))) is not None:
            changes[f"{name}_switches"] = int(count)
    grown = {THERMAL: _less(after.thermal, before.thermal), QUOTA: _less(after.quota, before.quota)}
    if any(count is not None for count in grown.values()):
        changes["throttle"] = [name for name, count in grown.items() if count]
    return changes


def _less(after: float | None, before: float | None) -> float | None:
    return after - before if after is not None and before is not None else None


def _busy_and_steal(root: Path) -> tuple[float | None, float | None]:
    """Of all CPUs since the start of the machine, in core-seconds. Guests' time is in `user` already."""
    words = (text(root / "proc/stat") or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:9]):
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    return (user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S


def _own(root: Path, pid: int) -> float | None:
    """CPU time in seconds of process `pid`, its living descendants, and all that they waited for."""
    ticks: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        words = (text(root / f"proc/{process}/stat") or "").rpartition(")")[2].split()
        if len(words) < 15 or process in ticks or not all(word.isdigit() for word in words[11:15]):
            continue  # it ended meanwhile
        ticks[process] = sum(int(word) for word in words[11:15])  # user, system, and both of children that were waited for
        for task in entries(root / f"proc/{process}/task"):
            waiting += [int(word) for word in (text(task / "children") or "").split() if word.isdigit()]
    return sum(ticks.values()) / TICKS_PER_S if pid in ticks else None


def _switches() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw, usage.ru_nivcsw


def _thermal(root: Path) -> int | None:
    """Each core has its counter; a package's is shown at each of its cores."""
    cores, packages = [], {}
    for folder in entries(root / CPUS, "cpu[0-9]*"):
        core, package = (number(folder / f"thermal_throttle/{name}_throttle_count") for name in ("core", "package"))
        cores += [core] if core is not None else []
        if package is not None:
            packages[text(folder / "topology/physical_package_id")] = package
    counts = [*cores, *packages.values()]
    return int(sum(counts)) if counts else None
