"""Ceilings: the fastest of many, at a size that takes long enough, and None with a reason where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
import torch

from benchmarks.ceilings.measuring import Ceilings, best, ceilings_of, measure_ceilings, samples
from benchmarks.ceilings.probe import Clocked, Copying
from benchmarks.cells.backends import (
    ONNXRUNTIME_CUDA,
    TENSORRT,
    TORCH_EAGER,
    TORCH_GRAPH,
)
from benchmarks.cells.cell import NotMeasured, Options
from tests.support.bench_ceilings import NAMES


@dataclass
class Scripted:
    """A probe whose durations are a test's: `rate` MACs per second, `speed` bytes per second, `operator_s` per operator."""

    rate: float = 1e9
    speed: float = 1e8
    operator_s: float = 1e-5
    call: float = 1e-3
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    lengths: tuple[int, int] = (10, 50)
    how: Mapping[str, Any] = field(default_factory=lambda: {"library": "scripted"})
    cache: int = 300
    most: int = 10**6  # the largest matrix that there is room for
    noise: tuple[float, ...] = (3.0, 1.0, 2.0)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def _clocked(self, seconds: float) -> Clocked:
        drawn = iter(self.noise * 10_000)
        return lambda: seconds * next(drawn)

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        self.asked.append(("product", size))
        if size > self.most:
            raise NotMeasured(f"no room for {size}")
        yield self._clocked(size**3 / self.rate)

    @contextmanager
    def copy(self) -> Iterator[Copying]:
        yield Copying(self._clocked(1000 / self.speed), 1000, self.cache)

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        self.asked.append(("chain", length))
        yield self._clocked(self.call + length * self.operator_s)


def measured(probe: Scripted) -> Ceilings:
    return ceilings_of(lambda: nullcontext(probe), seconds=0.001)


def test_the_fastest_sample_counts() -> None:
    ceilings = measured(Scripted())
    assert ceilings.macs_per_s == pytest.approx(1e9)
    assert ceilings.bytes_per_s == pytest.approx(1e8)
    assert ceilings.seconds_per_operator == pytest.approx(1e-5)  # the cost of a call cancels
    assert "unavailable" not in ceilings.how
    assert ceilings.how["library"] == "scripted"
    assert ceilings.how["bytes_per_s"]["cache_bytes"] == 300
    json.dumps(asdict(ceilings))


def test_the_first_size_that_takes_20_ms_is_taken() -> None:
    probe = Scripted()  # 256^3 MACs take 17 ms, 512^3 take 134
    ceilings = measured(probe)
    assert ceilings.how["macs_per_s"]["size"] == 512
    assert [size for what, size in probe.asked if what == "product"] == [64, 128, 256, 512]


def test_a_device_too_fast_for_the_sizes_gets_the_largest() -> None:
    ceilings = measured(Scripted(rate=1e13))
    assert ceilings.how["macs_per_s"]["size"] == 1024
    assert ceilings.macs_per_s == pytest.approx(1e13)


def test_a_device_with_little_memory_gets_the_largest_that_has_room() -> None:
    ceilings = measured(Scripted(rate=1e13, most=200))
    assert ceilings.how["macs_per_s"]["size"] == 128
    assert ceilings.macs_per_s == pytest.approx(1e13)


def test_what_cannot_be_measured_is_none_with_its_reason_and_the_rest_goes_on() -> None:
    ceilings = measured(Scripted(most=10, operator_s=-1e-6))
    assert (ceilings.macs_per_s, ceilings.seconds_per_operator) == (None, None)
    assert ceilings.bytes_per_s == pytest.approx(1e8)
    assert ceilings.how["unavailable"]["macs_per_s"] == "no room for 64"
    assert "took no longer than 10" in ceilings.how["unavailable"]["seconds_per_operator"]
    assert set(ceilings.how["unavailable"]) == {"macs_per_s", "seconds_per_operator"}


@pytest.mark.parametrize("cache", [1000, 10**6])
def test_a_copy_that_fits_in_the_cache_is_no_ceiling(cache: int) -> None:
    ceilings = measured(Scripted(cache=cache))
    assert ceilings.bytes_per_s is None
    assert "the cache holds" in ceilings.how["unavailable"]["bytes_per_s"]
    assert ceilings.macs_per_s and ceilings.seconds_per_operator


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clock_that_gives_no_time_gives_no_ceiling(wrong: float) -> None:
    with pytest.raises(NotMeasured, match="clock"):
        best([wrong])


def test_samples_warm_up_once_and_last_as_long_as_asked() -> None:
    now = [0.0]

    def clocked() -> float:
        now[0] += 1.0
        return now[0]

    assert samples(clocked, 5.0, lambda: now[0]) == [2, 3, 4, 5, 6]
    now[0] = 0.0
    assert samples(clocked, 0.0, lambda: now[0]) == [2, 3, 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
@pytest.mark.parametrize(
    ("backend", "device"), [(ONNXRUNTIME_CUDA, "cpu"), (TENSORRT, "cpu"), (TORCH_EAGER, "cuda"), (TORCH_GRAPH, "cuda")]
)
def test_without_a_gpu_nothing_is_guessed(backend: str, device: str) -> None:
    ceilings = measure_ceilings(backend, "fp32", Options(device=device), seconds=0.01)
    assert (ceilings.macs_per_s, ceilings.bytes_per_s, ceilings.seconds_per_operator) == (None, None, None)
    assert all(ceilings.how["unavailable"][name] for name in NAMES)
