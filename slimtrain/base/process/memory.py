"""Whether an error says that memory ran out: Python's own, and those that libraries have only words for. No torch."""

from __future__ import annotations

import errno
import re

# torch, CUDA, cuDNN, cuBLAS, onnxruntime, OpenVINO, TensorRT; the loader of shared libraries; threads that get no stack.
IN_WORDS = re.compile(
    r"out of memory|outofmemory|failed to allocate|unable to allocate|(can't|cannot) allocate memory|not enough memory"
    r"|bad_alloc|bad allocation|alloc_failed|cudaErrorMemoryAllocation|failed to map segment"
    r"|can't start new thread|\bMemoryError\b",
    re.IGNORECASE,
)
NAMING = (OSError, LookupError, ValueError, SyntaxError, AssertionError)  # what these quote may be the name of a file


def tells_of_memory(error: BaseException) -> bool:
    """Whether an error says by its class, number or words that memory ran out. A user's mistake never does."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, Exception) and not isinstance(error, NAMING) and in_words(str(error))


def in_words(text: str) -> bool:
    """Whether a library's message tells of it."""
    return IN_WORDS.search(text) is not None


def lack_of_memory(error: BaseException) -> BaseException | None:
    """The one, of an error and what it was raised from, that says so."""
    while error is not None and not tells_of_memory(error):
        error = error.__cause__  # type: ignore[assignment]
    return error
