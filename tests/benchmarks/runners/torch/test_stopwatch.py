"""The parts of the torch runners that a CPU can show: process-wide settings, buffers, and how a GPU's iteration is timed."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cells.cell import Timing
from benchmarks.runners.torch import stopwatch as torch_stopwatch
from benchmarks.runners.torch.images import Buffers, as_tensor, memory_format, open_buffers
from benchmarks.runners.torch.modes import current, held, modes_for
from benchmarks.runners.torch.stopwatch import DeviceStopwatch
from tests.support.bench_torch_helpers import FewImages

# ----------------------------------------------------------------------------------------------------------- modes


@pytest.fixture
def as_before() -> Iterator[None]:
    before = current()
    yield
    before.apply()


@pytest.mark.usefixtures("as_before")
def test_modes_of_a_gpu_and_of_a_cpu() -> None:
    before = current()
    fp32, tf32, cpu = modes_for("cuda", "fp32", 7), modes_for("cuda", "tf32", 7), modes_for("cpu", "fp32", 7)
    assert (fp32.threads, fp32.cudnn_benchmark, fp32.cudnn_tf32, fp32.matmul_tf32) == (before.threads, True, False, False)
    assert (tf32.cudnn_benchmark, tf32.cudnn_tf32, tf32.matmul_tf32) == (True, True, True)
    assert (cpu.threads, cpu.cudnn_benchmark) == (7, before.cudnn_benchmark)
    for modes in (fp32, tf32, cpu, before):
        modes.apply()
        assert current() == modes
        assert torch.backends.cuda.matmul.allow_tf32 == modes.matmul_tf32
        assert torch.backends.cudnn.allow_tf32 == modes.cudnn_tf32
        assert torch.backends.cudnn.benchmark == modes.cudnn_benchmark


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_modes_come_back_when_the_last_holder_ends(order: tuple[int, ...]) -> None:
    before = current()
    wanted = [modes_for("cuda", "fp32", 1), modes_for("cuda", "tf32", 1), modes_for("cpu", "fp32", before.threads + 1)]
    holders = [ExitStack() for _ in wanted]
    for holder, modes in zip(holders, wanted, strict=True):
        holder.enter_context(held(modes))
        assert current() == modes
    for place in order[:-1]:
        holders[place].close()
        assert current() == wanted[-1]
    holders[order[-1]].close()
    assert current() == before


@pytest.mark.usefixtures("as_before")
def test_modes_come_back_after_an_error() -> None:
    before = current()
    with pytest.raises(KeyError), held(modes_for("cuda", "tf32", 1)):
        raise KeyError
    assert current() == before


# ---------------------------------------------------------------------------------------------------------- images


def test_layouts() -> None:
    assert memory_format("cpu", "fp32") == memory_format("cpu", "bf16") == torch.channels_last
    assert memory_format("cuda", "fp16") == memory_format("cuda", "tf32") == torch.channels_last
    assert memory_format("cuda", "fp32") == torch.contiguous_format


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 4])
def test_tensors_share_the_noise_in_any_layout(layout: torch.memory_format, batch: int) -> None:
    noise = FewImages().buffers(batch, 0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(noise, layout)
    assert tensor.shape == noise.shape and tensor.data_ptr() == noise.ctypes.data
    assert tensor.is_contiguous(memory_format=layout)
    assert tensor.stride() == torch.empty(noise.shape).contiguous(memory_format=layout).stride()
    assert np.array_equal(np.sort(tensor.numpy(), axis=None), np.sort(noise, axis=None))  # every number once


def test_open_networks_share_their_buffers() -> None:
    images, others = FewImages(), FewImages()
    arguments = (2, torch.channels_last, "cpu", False)
    first = open_buffers(images, *arguments)
    assert open_buffers(images, *arguments) is first
    assert open_buffers(others, *arguments) is not first
    assert open_buffers(images, 1, *arguments[1:]) is not first
    assert open_buffers(images, *arguments[:3], True) is not first
    assert [batch for batch, _ in images.asked] == [2, 1, 2]
    kept = weakref.ref(first)
    del first
    assert kept() is None  # they go with the last network that reads them


def test_a_gpus_copies_fit_into_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up GPU, whose memory is the host's."""
    empty_like, size = torch.empty_like, 2 * 3 * 32 * 32 * 4

    def host(tensor: torch.Tensor, device: str = "cpu", pin_memory: bool = False) -> torch.Tensor:
        return empty_like(tensor)

    monkeypatch.setattr(torch, "empty_like", host)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(L2_cache_size=777))
    for free, count in ((100 * size, 3), (12 * size, 3), (8 * size, 2), (0, 2)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 1))
        images = FewImages()
        made = open_buffers(images, 2, torch.contiguous_format, "cuda", free > 8 * size)
        assert images.asked == [(2, 777)]
        assert made.settings == {"input_buffers": count, "input_bytes": count * size, "cache_bytes": 777}
        assert len(made.pinned) == (count if free > 8 * size else 0)
        for place, noise in enumerate(images.buffers(2, 0)[:count]):
            assert np.array_equal(made.images[place].numpy(), noise)
            assert not made.pinned or np.array_equal(made.pinned[place].numpy(), noise)


# ------------------------------------------------------------------------------------------------- timing on a GPU


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
    made = FakeGpu()

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = made.queue("event", 0.0, host=0.25)

        def synchronize(self) -> None:
            made.now = max(made.now, self.at)

        def elapsed_time(self, end: Event) -> float:
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(torch, "empty_like", lambda tensor, device, pin_memory: FakeTensor(made, "host logits"))
    monkeypatch.setattr(torch_stopwatch, "perf_counter", lambda: made.now)
    return made


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
    made = watch(gpu, transfers=False).time(FakeForward(gpu), 3)
    assert gpu.log[1:] == ["wait", "event", "run gpu 1", "event"]
    assert made == Timing(wall=41.25, device=41.0, enqueue=1.0)  # the GPU waits 1 s for the host, as eager networks let it


def test_what_a_graph_reads_is_copied_before_it_is_timed(gpu: FakeGpu) -> None:
    made = watch(gpu, transfers=False).time(FakeForward(gpu, "static"), 0)
    assert gpu.log == ["gpu 0 -> static", "wait", "event", "run static", "event"]
    assert made == Timing(wall=41.25, device=41.0, enqueue=1.0)


@pytest.mark.parametrize("place", ["", "static"])
def test_transfers_are_between_events_of_their_own(gpu: FakeGpu, place: str) -> None:
    stopwatch, forward = watch(gpu, transfers=True), FakeForward(gpu, place)
    stopwatch.time(forward, 0)
    gpu.log.clear()
    made = stopwatch.time(forward, 1)
    read = place or "gpu 1"
    assert gpu.log == ["wait", "event", f"host 1 -> {read}", "event", f"run {read}", "event", "logits -> host logits", "event"]
    # the upload begins 1 s after its event, the rest is queued while it runs
    assert made == Timing(wall=0.25 + 1 + 8 + 40 + 8, device=40.0, enqueue=1.0, upload=9.0, download=8.0)
