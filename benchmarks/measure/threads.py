"""How many CPU threads measure, and on which CPUs: one per physical core, pinned, so that runs can be compared.

Two threads of one core share its arithmetic, and a thread that the system moves between cores begins with cold caches. A
container's quota counts like missing cores: with more threads than it allows, all are stopped for parts of every period.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine.cgroups import cpu_quota
from slimtrain.base.errors import UserError

CPUS = Path("/sys/devices/system/cpu")
TASKS = Path("/proc/self/task")
# variable -> the module that reads it when it is loaded, and never again
VARIABLES = {"OMP_NUM_THREADS": "torch", "MKL_NUM_THREADS": "torch", "OPENBLAS_NUM_THREADS": "numpy"}


class TooManyThreads(UserError):
    """More threads are asked for than can run at once here."""


@dataclass(frozen=True)
class Cpus:
    """What this process may use: logical CPUs, those of one physical core together; and its quota, in CPUs, if it has one."""

    cores: tuple[tuple[int, ...], ...]
    quota: float | None = None

    @property
    def most_threads(self) -> int:
        """How many threads can run at once."""
        logical = sum(map(len, self.cores))
        return logical if self.quota is None else max(1, min(logical, int(self.quota)))

    @property
    def default_threads(self) -> int:
        """One for each physical core."""
        return min(len(self.cores), self.most_threads)

    def choose(self, threads: int) -> list[int]:
        """CPUs for so many threads: of different cores first."""
        widest = max(map(len, self.cores))
        order = [core[index] for index in range(widest) for core in self.cores if index < len(core)]
        return sorted(order[:threads])


def own_cpus() -> Cpus:
    """This process's CPUs, by its affinity and quota. Where the system tells no topology, every CPU counts as a core."""
    known = hasattr(os, "sched_getaffinity")
    allowed = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
    return Cpus(physical_cores(allowed), cpu_quota())


def physical_cores(allowed: list[int], root: Path = CPUS) -> tuple[tuple[int, ...], ...]:
    """The allowed CPUs, grouped by the core that they are of, in order of each core's first."""
    cores: dict[str, list[int]] = {}
    for cpu in allowed:
        try:
            siblings = (root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
        except OSError:
            siblings = str(cpu)
        cores.setdefault(siblings, []).append(cpu)
    return tuple(map(tuple, cores.values()))


def pin(threads: int | None = None, cpus: Cpus | None = None) -> dict[str, Any]:
    """Keep this process to the CPUs of `threads` threads, by default one per physical core; what was done, for results.

    All its threads are moved, later ones inherit. Where the system cannot (macOS, Windows), or forbids it, `pinned` is false
    and `why` says so. Libraries that are not loaded yet are told the number by environment variables. TooManyThreads where
    so many cannot run at once, or fewer than one is asked for.
    """
    cpus = own_cpus() if cpus is None else cpus
    wanted = cpus.default_threads if threads is None else threads
    if not 1 <= wanted <= cpus.most_threads:
        limit = "" if cpus.quota is None else f" under a quota of {cpus.quota:g} CPUs"
        raise TooManyThreads(
            f"{wanted} threads: this process can run {cpus.most_threads} at once ({sum(map(len, cpus.cores))} CPUs of "
            f"{len(cpus.cores)} cores{limit}). Expected 1 to {cpus.most_threads}: choose --threads from these, or give the "
            "process more CPUs."
        )
    chosen = cpus.choose(wanted)
    why = _set_affinity(dict.fromkeys(_threads(), chosen))
    for variable, module in VARIABLES.items():
        if module not in sys.modules:
            os.environ[variable] = str(wanted)
    done: dict[str, Any] = {"threads": wanted, "cpus": chosen if not why else None, "pinned": not why}
    if why:
        done["why"] = why
    return done | {"physical_cores": len(cpus.cores), "logical_cpus": sum(map(len, cpus.cores)), "quota": cpus.quota}


@contextlib.contextmanager
def pinned(threads: int | None = None) -> Iterator[dict[str, Any]]:
    """`pin` for a `with` block: afterwards threads may run where they might before, and the environment is as it was."""
    affinity = _affinity()
    environment = {variable: os.environ.get(variable) for variable in VARIABLES}
    everywhere = set().union(*affinity.values())
    try:
        yield pin(threads)
    finally:
        _set_affinity({thread: affinity.get(thread, everywhere) for thread in _threads()})
        for variable, value in environment.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def _threads() -> list[int]:
    """This process's threads, by the system's numbers; none where they cannot be pinned."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    try:
        return [int(task.name) for task in TASKS.iterdir()]
    except OSError:
        return [0]


def _affinity() -> dict[int, set[int]]:
    affinity = {}
    for thread in _threads():
        with contextlib.suppress(OSError):
            affinity[thread] = set(os.sched_getaffinity(thread))
    return affinity


def _set_affinity(wanted: Mapping[int, Any]) -> str:
    """Move threads; why that did not work, or nothing."""
    if not wanted:
        return f"{sys.platform} does not pin threads"
    for thread, cpus in wanted.items():
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:  # it has ended
            continue
        except OSError as error:
            return f"the system refuses it ({error.strerror})"
    return ""
