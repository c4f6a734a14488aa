"""Locks of the system's (flock) on open files: they end with the process that holds them, however that ends. Standard library
only."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int) -> bool | None:
    """Lock an open file for this process alone: whether it is locked now; None on systems and disks without locks. Nothing is
    waited for: where another process holds it, it is not locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def stands_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at `path` still. What a link there leads to is none."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
