"""How much memory this process may still take of the machine, of the container that it runs in, or of its own limit (as of
`ulimit -v`). Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

GIB = 2**30
ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that are left, of the machine, the control group or the process's limit, whichever has least; None where nothing
    tells.

    `root` is where /proc and /sys are looked for. Linux only: elsewhere nothing is known.
    """
    known = [
        bytes_left for bytes_left in (_machine(root), _version_2(root), _version_1(root), _own(root)) if bytes_left is not None
    ]
    return max(0, min(known)) if known else None


def gib(number: int) -> str:
    """Bytes as a person reads them: `14.2 GiB`."""
    return f"{number / GIB:.1f} GiB"


def _machine(root: Path) -> int | None:
    """MemAvailable: what can be had without swapping."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _own(root: Path) -> int | None:
    """Of the addresses that the process may have."""
    limits = [line.split() for line in _text(root / "proc/self/limits").splitlines() if line.startswith("Max address space")]
    pages = _text(root / "proc/self/statm").split()
    if not limits or not limits[0][3].isdigit() or not pages:
        return None
    return int(limits[0][3]) - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _version_2(root: Path) -> int | None:
    """Of the tightest of this process's control groups, from its own up."""
    mount = root / "sys/fs/cgroup"
    own = next((line[3:] for line in _text(root / "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = mount / own.strip("/")
    left = []
    for group in (folder, *folder.parents):
        limit = _number(group / "memory.max")
        if limit is not None:
            left.append(limit - (_number(group / "memory.current") or 0) + _reclaimable(group, "inactive_file"))
        if group == mount:
            break
    return min(left, default=None)


def _version_1(root: Path) -> int | None:
    group = root / "sys/fs/cgroup/memory"
    limit = _number(group / "memory.limit_in_bytes")
    if limit is None:
        return None
    return limit - (_number(group / "memory.usage_in_bytes") or 0) + _reclaimable(group, "total_inactive_file")


def _reclaimable(group: Path, key: str) -> int:
    """What the files that were read take: the system gives it back when it is needed."""
    lines = (line.split() for line in _text(group / "memory.stat").splitlines())
    return next((int(words[1]) for words in lines if words[0] == key), 0)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
