"""How an iteration is timed: by the host's clock on a CPU, by events and the host's clock on a GPU.

Before an iteration begins its images are where the network reads them and the GPU is idle; the result is released after the
clock has stopped.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.cells.cell import Timing
from benchmarks.runners.torch.forwards import Eager
from benchmarks.runners.torch.images import Buffers


class HostStopwatch:
    """Times calls on a CPU, where a call returns when its work is done."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers

    def time(self, forward: Eager, index: int) -> Timing:
        """Timing of one iteration on buffer `index`, modulo their number."""
        images = forward.target(self.buffers.images[index % len(self.buffers.images)])
        call = forward.call
        began = perf_counter()
        logits = call(images)
        wall = perf_counter() - began
        del logits
        return Timing(wall)


class DeviceStopwatch:
    """Times calls on a GPU. `device` is between events around the call, `enqueue` the call on the host, `wall` everything.

    With `transfers` the images are copied from page-locked memory first and the result goes there, each between events.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        event = partial(torch.cuda.Event, enable_timing=True)
        self.begin, self.called, self.ended, self.end = event(), event(), event(), event()
        self.result: Tensor | None = None

    def time(self, forward: Eager, index: int) -> Timing:
        """Timing of one iteration on buffer `index`, modulo their number."""
        at = index % len(self.buffers.images)
        return self._with_transfers(forward, at) if self.buffers.pinned else self._alone(forward, at)

    def _alone(self, forward: Eager, at: int) -> Timing:
        images = self.buffers.images[at]
        target = forward.target(images)
        if target is not images:
            target.copy_(images)
        call = forward.call
        torch.cuda.synchronize()
        began = perf_counter()
        self.called.record()
        queuing = perf_counter()
        logits = call(target)
        queued = perf_counter()
        self.ended.record()
        self.ended.synchronize()
        wall = perf_counter() - began
        del logits
        return Timing(wall, _seconds(self.called, self.ended), queued - queuing)

    def _with_transfers(self, forward: Eager, at: int) -> Timing:
        pinned, target = self.buffers.pinned[at], forward.target(self.buffers.images[at])
        call = forward.call
        if self.result is None:
            self.result = torch.empty_like(call(target), device="cpu", pin_memory=True)
        torch.cuda.synchronize()
        began = perf_counter()
        self.begin.record()
        target.copy_(pinned, non_blocking=True)
        self.called.record()
        queuing = perf_counter()
        logits = call(target)
        queued = perf_counter()
        self.ended.record()
        self.result.copy_(logits, non_blocking=True)
        self.end.record()
        self.end.synchronize()
        wall = perf_counter() - began
        del logits
        upload, device, download = (
            _seconds(first, second)
            for first, second in ((self.begin, self.called), (self.called, self.ended), (self.ended, self.end))
        )
        return Timing(wall, device, queued - queuing, upload, download)


def _seconds(first: torch.cuda.Event, second: torch.cuda.Event) -> float:
    return float(first.elapsed_time(second)) / 1e3
