"""A copy larger than the cache, on a CPU or a GPU: what its memory does at best. Counts bytes read plus bytes written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from benchmarks.ceilings.probe import MEMORY_SHARE, Clocked, Copying
from benchmarks.cells.backends import CPU, CUDA
from benchmarks.cells.inputs import cache_bytes
from benchmarks.machine.host_memory import HostMemory
from slimexport.target.cuda.runtime import Cuda, Stream

LEAST_BYTES = {CPU: 64 << 20, CUDA: 256 << 20}


def copy_size(device: str, cache: int, free: int | None) -> int:
    """How many bytes to copy: twice the cache or LEAST_BYTES, as far as source and target have room; whole pages."""
    wanted = max(LEAST_BYTES[device], 2 * cache)
    room = wanted if free is None else int(MEMORY_SHARE * free) // 2
    return max(1, min(wanted, room) >> 12) << 12


@contextmanager
def copy_on_cpu(threads: int) -> Iterator[Copying]:
    """A copy by `threads` threads (numpy lets others run meanwhile), each with its part of the arrays.

    Raises MemoryError where there is no room.
    """
    cache = cache_bytes()
    count = copy_size(CPU, cache, HostMemory().left_bytes()) // 8
    source, to = np.random.default_rng(0).random(count), np.ones(count)  # ones: pages are there before they are timed
    parts = list(zip(np.array_split(to, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def clocked() -> float:
            started = time.perf_counter()
            for done in [pool.submit(np.copyto, *part) for part in parts]:
                done.result()
            return time.perf_counter() - started

        yield Copying(clocked, 2 * source.nbytes, cache)


@contextmanager
def copy_on_gpu(cuda: Cuda) -> Iterator[Copying]:
    """A copy within the device's memory, timed by events. Raises CudaError."""
    cache = cuda.l2_cache_bytes()
    nbytes = copy_size(CUDA, cache, cuda.memory_info()[0])
    with cuda.stream() as stream, cuda.memory(nbytes) as source, cuda.memory(nbytes) as to:
        stream.upload(source, np.frombuffer(np.random.default_rng(0).bytes(nbytes), np.uint8))
        with by_events(stream, lambda: stream.copy(to, source)) as clocked:
            yield Copying(clocked, 2 * nbytes, cache)


@contextmanager
def by_events(stream: Stream, launch: Callable[[], object]) -> Iterator[Clocked]:
    """What the device takes for the work that `launch` queues on `stream`. Raises CudaError."""
    with stream.cuda.event() as start, stream.cuda.event() as end:

        def clocked() -> float:
            start.record(stream)
            launch()
            end.record(stream)
            stream.synchronize()
            return 1e-3 * start.elapsed_ms(end)

        yield clocked
