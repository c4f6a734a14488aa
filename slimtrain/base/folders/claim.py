"""A folder is one process's at a time: from the first thing that it writes there to the last.

Its claim is a lock of the system's (flock) on a hidden file beside the folder, `.NAME.lock`, which ends with the process,
however that ends. So whoever holds it knows that what others began to write there, under hidden names, is left over: no
process's number has to tell, which another process may have by now, or one in another container.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.base.process.locks import lock, stands_at

END = ".lock"
LONGEST = 20  # digits of a process's number
_held: set[int] = set()  # descriptors of this process's claims


def _leave_to_parent() -> None:
    """In a process that was forked: the claims stay its parent's, and end with that."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def claimed(folder: Path, instead: str) -> Iterator[bool]:
    """Hold `folder`, whose parent exists, in the block. Whether it is held is given: systems and disks without locks, and
    parents that may not be written to, go without.

    UserError where another process holds it (or this one, in another block), with `instead`: what else to do.
    """
    path = lock_of(folder)
    descriptor = _locked(path, folder, instead)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
            _close(descriptor)


def lock_of(folder: Path) -> Path:
    """The file that stands for a folder's claim."""
    place = Path(os.path.abspath(folder))
    return place.with_name(f".{place.name}{END}")


def _locked(path: Path, folder: Path, instead: str) -> int | None:
    """A descriptor that holds the lock; None where there are no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError:  # whoever writes there meets it too, and says what it means
            return None
        _held.add(descriptor)
        held = lock(descriptor)
        if held is False:
            holder = os.pread(descriptor, LONGEST, 0).decode("ascii", "replace").strip()
            _close(descriptor)
            who = f"process {holder}" if holder.isdecimal() else "another process"
            raise UserError(f"{folder}: {who} is writing there. {instead}")
        if held and stands_at(descriptor, path):
            with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's number
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        _close(descriptor)
        if held is None:
            return None  # else its holder before removed the file after it was opened here


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    with contextlib.suppress(OSError):  # it is closed then, and what it held is of no account
        os.close(descriptor)
