"""Progress on standard error: one line that is rewritten on a terminal, a line for every tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

WIDTH = 100

OnProgress = Callable[[str, float, int], None]  # is given what is being done, and how many of how many steps are done
Say = Callable[[str], None]  # shows the user a line


class RoundProgress:
    """An `OnProgress` that counts rounds; for a `with` block.

    It writes between turns only, so that nothing of it falls into what is measured.
    """

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.tenths = 0

    def __call__(self, doing: str, done: float, total: int) -> None:
        text = f"{done:.0f} of {total} rounds, {doing}"
        if self.terminal:
            sys.stderr.write(f"\r{text[:WIDTH]:<{WIDTH}}")
            sys.stderr.flush()
        elif total and int(10 * done / total) > self.tenths:
            self.tenths = int(10 * done / total)
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> RoundProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.terminal:
            sys.stderr.write(f"\r{'':<{WIDTH}}\r")
            sys.stderr.flush()
