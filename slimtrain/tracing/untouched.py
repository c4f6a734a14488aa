"""Tensors that have a shape and whose numbers nobody looks at: examples for an export."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

LARGE = 2**28  # bytes from here on are only reserved
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's; the constant is there from Python 3.13 on


def untouched(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of `shape`. A large one takes no memory, nor is any promised for it, until somebody reads it: the masks of a
    thousand images of a hundred objects are 25 GB."""
    numbers = math.prod(shape)
    size = numbers * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    except (AttributeError, OSError, ValueError):  # another system
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(pages, dtype=dtype, count=numbers).reshape(shape)
