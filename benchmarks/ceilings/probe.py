"""What the probes of all backends share: products whose size grows until they take long enough, and copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks.cells.backends import CPU, CUDA
from benchmarks.cells.cell import Array, NotMeasured

SIZES = {CPU: (512, 1024, 2048, 4096, 8192), CUDA: (1024, 2048, 4096, 8192, 16384)}  # of matrices, to try
PERIOD = 1_000_003  # a prime, so that no row of a matrix begins like another
MEMORY_SHARE = 0.25  # of what is free, for all matrices, or source and target of a copy
Clocked = Callable[[], float]  # does something once, and gives the seconds that it took


@dataclass(frozen=True)
class Copying:
    """A copy, the bytes that it reads and writes together, and the cache that these must exceed."""

    clocked: Clocked
    moved_bytes: int
    cache_bytes: int


class Probe(Protocol):
    """A library on a device. `how` describes it. All methods raise NotMeasured where it cannot do something.

    `sizes` are those of products to try, from the smallest; `lengths` two numbers of operators in a chain.
    """

    @property
    def sizes(self) -> Sequence[int]: ...

    @property
    def lengths(self) -> tuple[int, int]: ...

    @property
    def how(self) -> Mapping[str, Any]: ...

    def product(self, size: int) -> AbstractContextManager[Clocked]:
        """A product of two random [size, size] matrices."""

    def copy(self) -> AbstractContextManager[Copying]:
        """A copy, larger than the cache if there is room."""

    def chain(self, length: int) -> AbstractContextManager[Clocked]:
        """`length` operators, each too small to take time by itself."""


def require_room(nbytes: int, free: int | None) -> None:
    """NotMeasured where three matrices of `nbytes` together are more than a fair share of the memory that is free."""
    if free is not None and nbytes > MEMORY_SHARE * free:
        raise NotMeasured(f"three matrices take {nbytes >> 20} MiB, and {free >> 20} MiB of memory are free")


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Standard normal float32 values. Beyond a million they repeat, at other places of each row: no device can tell."""
    drawn = np.random.default_rng(seed).standard_normal(min(PERIOD, math.prod(shape)), np.float32)
    return np.resize(drawn, shape)
