"""A backend's failure, as the reason of a row: out of memory, or whatever else it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.cells.cell import NotMeasured, OutOfMemory
from slimexport.target.errors import BundleError, MissingBackend

OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|failed to allocate|bad_alloc|alloc_failed|cudaErrorMemoryAllocation", re.IGNORECASE
)
OF_THE_TARGET = (BundleError, MissingBackend)  # CudaError and PlanMismatch among them


@contextmanager
def reasons(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of `kinds` in a `with` block become NotMeasured, or OutOfMemory where they tell of that; a reason is one line."""
    try:
        yield
    except NotMeasured:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"the host's memory does not suffice ({first_line(error)}).") from error
    except kinds as error:
        raise (OutOfMemory if OUT_OF_MEMORY.search(str(error)) else NotMeasured)(first_line(error)) from error


def first_line(error: Exception) -> str:
    """What an error says first; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
