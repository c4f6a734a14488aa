"""Random images to measure with, rotated among buffers that no cache holds together.

A network that is fed the same buffer again and again finds its input in the cache, which users' inputs are not in; zeros
would let hardware and libraries take short cuts. So there are many buffers, all of standard normal noise. They are views of
one pool, so that 31 widths at three batches share the memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.cells.cell import Array
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.models.spec import IMAGE_CHANNELS

FLOAT_BYTES = 4
LINE_FLOATS = 16  # floats in a cache line: all buffers begin at the same place of one
UNKNOWN_CACHE_BYTES = 32 << 20
CPUS = Path("/sys/devices/system/cpu")
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class RandomImages:
    """Images [batch, channels, height, width], or inputs of another `shape`, float32, standard normal, the same for the same
    `seed`.

    `most_bytes` bounds what one batch's buffers take together; two buffers are given whatever they take.
    """

    def __init__(
        self,
        image_size: ImageSize,
        seed: int = 0,
        most_bytes: int = 1 << 30,
        channels: int = IMAGE_CHANNELS,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.image_shape = shape or (channels, *sides(image_size))
        self.most_bytes = most_bytes
        self._generator = np.random.default_rng(seed)
        self._views: dict[tuple[int, int], list[Array]] = {}
        self._blocks: list[Array] = []  # the pool grows by blocks: views of the earlier ones stay what they are

    def buffers(self, batch: int, cache_bytes: int) -> list[Array]:
        """At least two buffers, contiguous and read-only, together larger than twice `cache_bytes` or as large as
        `most_bytes` allows. Buffers of one call share no memory. Raises MemoryError where there is too little."""
        shape = (batch, *self.image_shape)
        count, floats = self._count(batch, cache_bytes), self._floats(batch)
        if (batch, count) in self._views:  # of small images there are 100,000: one list for all widths
            return self._views[batch, count]
        stride = -(-floats // LINE_FLOATS) * LINE_FLOATS
        missing = count - sum(len(block) // stride for block in self._blocks)
        if missing > 0:
            try:
                block = self._generator.standard_normal(missing * stride, np.float32)
            except (ValueError, OverflowError) as error:  # more than an array can have
                raise MemoryError(f"{count} buffers of {floats} numbers") from error
            block.setflags(write=False)
            self._blocks.append(block)
        views = (block[at : at + floats] for block in self._blocks for at in range(0, len(block) - stride + 1, stride))
        self._views[batch, count] = [view.reshape(shape) for view, _ in zip(views, range(count), strict=False)]
        return self._views[batch, count]

    def covers_cache(self, batch: int, cache_bytes: int) -> bool:
        """Whether the buffers of `batch` are together larger than twice `cache_bytes`, which `most_bytes` may forbid."""
        return self._count(batch, cache_bytes) * self._floats(batch) * FLOAT_BYTES > 2 * cache_bytes

    def _floats(self, batch: int) -> int:
        return batch * math.prod(self.image_shape)

    def _count(self, batch: int, cache_bytes: int) -> int:
        size = self._floats(batch) * FLOAT_BYTES
        return max(2, min(2 * cache_bytes // size + 1, self.most_bytes // size))


_assumed: list[int] = []


@contextmanager
def assumed_cache(size_bytes: int | None) -> Iterator[None]:
    """Within the block `cache_bytes` gives this size, unless it is None: virtual machines may report a cache that other guests
    fill, and filling memory twice as large takes its time."""
    if size_bytes is None:
        yield
        return
    _assumed.append(size_bytes)
    try:
        yield
    finally:
        _assumed.pop()


def cache_bytes(cpus: Path = CPUS) -> int:
    """The size of this CPU's last-level cache, the largest where its cores differ; 32 MiB where the system does not tell."""
    if _assumed:
        return _assumed[-1]
    sizes: dict[int, int] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level = int((index / "level").read_text(encoding="ascii"))
            size = _bytes((index / "size").read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
        sizes[level] = max(size, sizes.get(level, 0))
    last = sizes[max(sizes)] if sizes else 0
    return last or UNKNOWN_CACHE_BYTES


def _bytes(size: str) -> int:
    """`32768K` in bytes. ValueError for what is no size."""
    unit = SUFFIXES.get(size[-1:].upper())
    return int(size[:-1]) * unit if unit else int(size)
