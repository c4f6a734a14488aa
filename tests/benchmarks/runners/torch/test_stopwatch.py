"""The parts of the torch runners that a CPU can show: process-wide settings, buffers, and how a GPU's iteration is timed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.cells.cell import Timing
from benchmarks.runners.torch import stopwatch as torch_stopwatch
from benchmarks.runners.torch.images import Buffers
from benchmarks.runners.torch.stopwatch import DeviceStopwatch
from tests.support.bench_torch_helpers import FewImages


class FakeGpu:
    """A clock that the host and the GPU share; what is queued on the GPU is done when the host waits for it.

    Queuing takes the host 1 s, an event 0.25 s; the network's work takes the GPU 40 s, a copy 8 s. `log` says what happened
    in which order.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.free_at = 100.0
        self.log: list[str] = []

    def queue(self, what: str, seconds: float, host: float = 1.0) -> float:
        self.now += host
        self.free_at = max(self.free_at, self.now) + seconds
        self.log.append(what)
        return self.free_at

    def synchronize(self) -> None:
        self.now = max(self.now, self.free_at)
        self.log.append("wait")


class FakeTensor:
    """Images in a place; `copy_` is work for the GPU."""

    def __init__(self, gpu: FakeGpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def copy_(self, other: FakeTensor, non_blocking: bool = False) -> FakeTensor:
        if "host" not in self.name + other.name:
            assert not non_blocking
        else:
            assert non_blocking, "a copy that waits would be timed by the host"
        self.gpu.queue(f"{other.name} -> {self.name}", 8.0)
        return self


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = fake.queue("event", 0.0, host=0.25)

        def synchronize(self) -> None:
            fake.now = max(fake.now, self.at)

        def elapsed_time(self, end: Event) -> float:
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch, "empty_like", lambda tensor, device, pin_memory: FakeTensor(fake, "host logits"))
    monkeypatch.setattr(torch_stopwatch, "perf_counter", lambda: fake.now)
    return fake


class FakeForward:
    """A network of 40 s that reads its images where they are, or at one place."""

    def __init__(self, gpu: FakeGpu, place: str = "") -> None:
        self.gpu, self.place = gpu, FakeTensor(gpu, place) if place else None

    def target(self, images: Any) -> Any:
        return self.place or images

    def call(self, images: FakeTensor) -> FakeTensor:
        self.gpu.queue(f"run {images.name}", 40.0)
        return FakeTensor(self.gpu, "logits")


def watch(gpu: FakeGpu, transfers: bool) -> Any:
    images: Any = [FakeTensor(gpu, f"gpu {place}") for place in range(2)]
    pinned: Any = [FakeTensor(gpu, f"host {place}") for place in range(2)] if transfers else []
    return DeviceStopwatch(Buffers(FewImages(), images, 0, pinned))


def test_a_gpus_iteration_is_between_events(gpu: FakeGpu) -> None:
    gpu.queue("somebody else's", 1000.0)
    timing = watch(gpu, transfers=False).time(FakeForward(gpu), 3)
    assert gpu.log[1:] == ["wait", "event", "run gpu 1", "event"]
    assert timing == Timing(wall=41.25, device=41.0, enqueue=1.0)  # the GPU waits 1 s for the host, as eager networks let it


def test_what_a_graph_reads_is_copied_before_it_is_timed(gpu: FakeGpu) -> None:
    timing = watch(gpu, transfers=False).time(FakeForward(gpu, "static"), 0)
    assert gpu.log == ["gpu 0 -> static", "wait", "event", "run static", "event"]
    assert timing == Timing(wall=41.25, device=41.0, enqueue=1.0)


@pytest.mark.parametrize("place", ["", "static"])
def test_transfers_are_between_events_of_their_own(gpu: FakeGpu, place: str) -> None:
    stopwatch, forward = watch(gpu, transfers=True), FakeForward(gpu, place)
    stopwatch.time(forward, 0)
    gpu.log.clear()
    timing = stopwatch.time(forward, 1)
    read = place or "gpu 1"
    assert gpu.log == ["wait", "event", f"host 1 -> {read}", "event", f"run {read}", "event", "logits -> host logits", "event"]
    # the upload begins 1 s after its event, the rest is queued while it runs
    assert timing == Timing(wall=0.25 + 1 + 8 + 40 + 8, device=40.0, enqueue=1.0, upload=9.0, download=8.0)
