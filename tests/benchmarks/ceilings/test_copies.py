"""Copies: as large as there is room for, of noise, counted both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.ceilings.copies import LEAST_BYTES, copy_on_cpu, copy_on_gpu, copy_size
from benchmarks.cells.backends import CPU, CUDA
from benchmarks.cells.inputs import assumed_cache
from slimexport.target.cuda.runtime import Cuda
from tests.support.bench_ceilings import TWO_MS
from tests.support.cuda_fake import FakeCudart


@pytest.mark.parametrize(
    ("cache", "free", "expected"),
    [
        (1 << 20, None, 64 << 20),
        (100 << 20, None, 200 << 20),
        (100 << 20, 800 << 20, 100 << 20),  # source and target take a quarter of what is free
        (1 << 20, 4097 * 8, 4096),
        (1 << 20, 0, 4096),
    ],
)
def test_a_copy_exceeds_the_cache_twice_where_there_is_room(cache: int, free: int | None, expected: int) -> None:
    assert copy_size(CPU, cache, free) == expected
    assert copy_size(CUDA, 1 << 30, None) == 2 << 30


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_copy_copies_everything_and_counts_bytes_both_ways(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setitem(LEAST_BYTES, CPU, 1 << 16)
    seen: list[tuple[Any, Any]] = []
    real = np.copyto

    def copyto(to: Any, source: Any) -> None:
        seen.append((to, source))
        real(to, source)

    monkeypatch.setattr(np, "copyto", copyto)
    with assumed_cache(5000), copy_on_cpu(threads) as copying:
        assert copying.clocked() > 0
    assert len(seen) == threads
    assert sum(source.nbytes for _, source in seen) * 2 == copying.moved_bytes == 2 << 16
    assert copying.cache_bytes == 5000
    for to, source in seen:
        np.testing.assert_array_equal(to, source)
        assert np.unique(source).size > 1  # noise, not a constant


def test_a_copy_on_a_gpu_copies_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEAST_BYTES, CUDA, 1 << 16)
    library = FakeCudart()
    with copy_on_gpu(Cuda(library)) as copying:
        assert copying.clocked() == pytest.approx(TWO_MS)
        source, to = library.memory.values()
        assert source == to and len(set(source)) > 200
        assert copying.moved_bytes == 2 << 16
    assert library.leaks == []
