"""Reasons for what torch raises: a cell without a figure says why, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.cells.cell import NotMeasured, OutOfMemory
from benchmarks.runners.failures import OUT_OF_MEMORY, first_line

# torch has a class for its own GPU allocations only; its CPU allocator and the CUDA libraries raise RuntimeError
OF_THE_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the GPU had too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    told_so = OUT_OF_MEMORY.search(text) is not None or any(mark in text for mark in OF_THE_CPU_ALLOCATOR)
    return isinstance(error, RuntimeError) and told_so


@contextmanager
def told(device: str) -> Iterator[None]:
    """OutOfMemory for whatever torch raises where memory on `device` runs out, NotMeasured for its other errors."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            where = "GPU's" if device == "cuda" else "host's"
            raise OutOfMemory(f"the {where} memory does not suffice ({first_line(error)})") from error
        raise NotMeasured(f"torch {torch.__version__} does not run it on {device}: {first_line(error)}") from error
