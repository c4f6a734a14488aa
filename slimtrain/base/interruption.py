"""Ctrl-C and a polite kill raise KeyboardInterrupt once each, wherever the program is at that moment.

Python runs a signal's handler between two steps of the main thread. Where that is in a destructor (or in another callback
whose errors nobody can catch: of a weak reference, of the garbage collector, the end of a generator), what the handler
raises is printed as "Exception ignored in ..." and gone: the program would go on for hours. `sys.unraisablehook` sees such
errors; an interruption among them is raised again a moment later, by a timer, when the callback has ended.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_S = 0.02  # a destructor takes less; if not, the interruption is lost in it and raised again once more


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in the block, as Ctrl-C does, and neither gets lost in a destructor. Handlers that
    stood before stand again afterwards. A thread that may set no handlers goes without, as does Windows, which has no
    timers of this kind, without the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = sys.unraisablehook
    pending = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        pending = False
        raise KeyboardInterrupt

    def again(unraisable: UnraisableHookArgs) -> None:
        nonlocal pending
        if not _lost(unraisable.exc_value):
            former(unraisable)
            return
        pending = True
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    timers = hasattr(signal, "setitimer")
    if timers:
        handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop)
        sys.unraisablehook = again
    try:
        yield
        if pending:  # the block ended first
            raise KeyboardInterrupt
    finally:
        if timers:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = former
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _lost(error: BaseException | None) -> bool:
    """Whether `error`, which nobody can catch, or what it came from is an interruption. One that is being handled around the
    callback (its errors come from that too) is not lost."""
    handled = sys.exc_info()[1]
    while error is not None and error is not handled:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
