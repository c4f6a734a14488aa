"""Sizes at which ceilings take milliseconds, on this CPU and on made-up GPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.ceilings.copies import LEAST_BYTES
from benchmarks.ceilings.probe import SIZES
from benchmarks.cells.backends import CPU, CUDA
from benchmarks.cells.inputs import assumed_cache


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sizes at which everything takes milliseconds."""
    monkeypatch.setitem(SIZES, CPU, (64, 256))
    monkeypatch.setitem(LEAST_BYTES, CPU, 1 << 20)
    with assumed_cache(1 << 18):
        yield


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes for a device with 3 MiB of free memory."""
    monkeypatch.setitem(SIZES, CUDA, (16, 32))
    monkeypatch.setitem(LEAST_BYTES, CUDA, 1 << 16)
