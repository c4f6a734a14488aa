"""Threads that nothing stops, such as one within a library's operator. A process that left one behind ends without it: to free
what such a thread works with, as a usual end does, ends in a crash in place of the exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_left: list[threading.Thread] = []


def leave_behind(thread: threading.Thread) -> None:
    """Remember a thread that did not end."""
    _left.append(thread)


def left_behind() -> list[threading.Thread]:
    """Those that have not ended since."""
    _left[:] = [thread for thread in _left if thread.is_alive()]
    return list(_left)


def end_without_them(code: object) -> None:
    """End the process at once with the exit code that SystemExit holds, where threads were left behind."""
    if not left_behind():
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
