"""Reasons for what torch raises: a cell without a figure says why, and the rest goes on.

torch has a class for its own allocations on a GPU, and one with CUDA's code for what the CUDA runtime refuses. What its CPU
allocator refuses, and what cuBLAS and cuDNN do, is a RuntimeError like any other. Whether such a one is for want of memory is
measured while everything that the failed network held is still held: a lack of memory is still there then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.cells.backends import CUDA
from benchmarks.cells.cell import Cell, NotMeasured, OutOfMemory
from benchmarks.machine.host_memory import HostMemory
from benchmarks.runners.failures import CUDA_OUT_OF_MEMORY, first_line
from slimtrain.base.image_size import pixels

LIBRARIES_BYTES = 256 << 20  # of a GPU, which cuBLAS and cuDNN take for themselves when they begin
FLOAT_BYTES = 4
STEM_CHANNELS = 64  # of the image's own size: hardly any network writes more at once


def largest_bytes(cell: Cell) -> int:
    """What a cell's network asks torch for at once, at most: all that its layers write for a batch, or all its weights."""
    per_image = STEM_CHANNELS * pixels(cell.image_size) if cell.activations is None else cell.activations
    return FLOAT_BYTES * max(cell.batch * per_image, cell.params)


def is_out_of_memory(error: BaseException, device: str, needed_bytes: int) -> bool:
    """Whether `device` had too little memory for a network that asks for up to `needed_bytes` at once."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, torch.AcceleratorError):
        return vars(error).get("error_code") == CUDA_OUT_OF_MEMORY
    return isinstance(error, RuntimeError) and _is_lacking(device, needed_bytes)


def _is_lacking(device: str, needed_bytes: int) -> bool:
    """Whether the device's memory is used up. torch's own allocations on a GPU have a class, so only libraries need some."""
    if device != CUDA:
        return not HostMemory().has_room(needed_bytes)
    try:
        free, _ = torch.cuda.mem_get_info()
    except RuntimeError:  # after some errors a GPU answers nothing more in this process
        return False
    return free < LIBRARIES_BYTES


def out_of_memory(error: BaseException, device: str) -> OutOfMemory:
    """What to say of an error that is one."""
    return OutOfMemory(f"the {'GPU' if device == CUDA else 'host'}'s memory does not suffice ({first_line(error)})")


@contextmanager
def torch_reasons(device: str, needed_bytes: int = 0) -> Iterator[None]:
    """OutOfMemory for whatever torch raises where memory on `device` runs out, NotMeasured for its other errors."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error, device, needed_bytes):
            raise out_of_memory(error, device) from error
        raise NotMeasured(f"torch {torch.__version__} does not run it on {device}: {first_line(error)}") from error
