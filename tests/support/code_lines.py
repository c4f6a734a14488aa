"""Which lines of a module run, so that a test which drives every path through it knows that none was left out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

FUNCTION = 0x2  # CO_NEWLOCALS: the code of a function, not of a module or a class


def function_lines(module: ModuleType, but: tuple[Callable[..., Any], ...] = ()) -> set[int]:
    """The numbers of all lines in a module's functions and methods, except those of `but`."""
    path = Path(str(module.__file__))
    skipped = {function.__code__.co_firstlineno for function in but}
    return set(_lines(compile(path.read_text(encoding="utf-8"), str(path), "exec"), skipped))


def _lines(code: CodeType, skipped: set[int]) -> Iterator[int]:
    if code.co_firstlineno in skipped:
        return
    if code.co_flags & FUNCTION:
        yield from (line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant, skipped)


@contextmanager
def lines_run(*modules: ModuleType) -> Iterator[dict[str, set[int]]]:
    """The lines of these modules that run in the block, in any thread, by the module's name."""
    names = {str(module.__file__): module.__name__ for module in modules}
    seen: dict[str, set[int]] = {name: set() for name in names.values()}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = names.get(frame.f_code.co_filename)
        if name is None:
            return None
        seen[name].add(frame.f_lineno)
        return trace

    before, before_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(trace)
    threading.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)
        threading.settrace(before_threads)
