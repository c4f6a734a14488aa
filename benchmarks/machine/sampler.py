"""What the machine did during a round. `StateSampler` brackets a round with `start()` and `stop()`.

A CPU's counters are read at both ends and nothing runs in between: a thread would disturb what it watches on a machine of few
cores. A GPU's clocks are known only by looking, so a thread looks every 100 ms where that is cheap, and never for more than
2 % of the time. What is seen right after the work says less, so it counts only where no look fell in between; what is seen
before it says nothing.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine.cpu_sensors import clocks_mhz, cpu_temperature_c
from benchmarks.machine.cpu_state import Counters, between, read_counters
from benchmarks.machine.gpu_choice import NoGpu
from benchmarks.machine.gpu_reasons import slowing
from benchmarks.machine.gpu_state import GpuReader, open_gpu

PERIOD_S = 0.1
REST = 50  # times as long as a look took: looking takes at most 2 % of the time
JOIN_TIMEOUT_S = 5.0
SPREADS = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")


class StateSampler:
    """Make one, use it for all rounds, `close()` it in the end. `device` is `cpu`, `cuda` or `cuda:1`, where the work runs.

    With a `with` block per round, `state` is what `stop()` returned. `root` and `opener` stand in for the machine in tests.
    """

    def __init__(
        self,
        device: str = "cpu",
        root: Path = Path("/"),
        opener: Callable[[int], GpuReader] = open_gpu,
        period_s: float = PERIOD_S,
    ) -> None:
        self.state: dict[str, Any] = {}
        self._root, self._period_s = root, period_s
        self._gpu: GpuReader | None = None
        self._before: Counters | None = None
        self._warm_c: float | None = None
        self._watch: _Watch | None = None
        kind, _, index = device.partition(":")
        if kind == "cuda":
            try:
                self._gpu = opener(int(index or 0))
            except NoGpu:
                self._gpu = None  # the environment tells the reason

    def start(self) -> None:
        """A round begins. One that was begun and not stopped is forgotten."""
        self._end_watch()
        self._warm_c = None if self._gpu is not None else cpu_temperature_c(self._root)
        if self._gpu is not None and self._gpu.in_background:
            self._watch = _Watch(self._gpu, self._period_s)
            self._watch.start()
        self._before = read_counters(self._root)

    def stop(self) -> dict[str, Any]:
        """What was seen since `start()`, with only the keys that could be read.

        `throttle`: names of what slowed the work down, empty for nothing. As [lowest, median, highest]: `cpu_mhz`, of the CPUs
        usable here, at the end; `temperature_c`, and on a GPU `sm_clock_mhz`, `memory_clock_mhz` and `power_w`. In cores:
        `other_load`, kept busy by other processes, and `steal`, taken by the hypervisor. `voluntary_switches` and
        `involuntary_switches`: how often this process gave a core up, and lost one.
        """
        assert self._before is not None, "start() comes first"
        after = read_counters(self._root)
        state = between(self._before, after)
        self._before = None
        looks = self._end_watch()
        if self._gpu is not None:
            _add_gpu(state, looks or [self._gpu.state()])
        else:
            ends = [value for value in (self._warm_c, cpu_temperature_c(self._root)) if value is not None]
            _add_spread(state, "temperature_c", ends)
        _add_spread(state, "cpu_mhz", clocks_mhz(root=self._root))
        self.state = state
        return state

    def close(self) -> None:
        """Let go of the GPU; nothing happens the second time."""
        self._end_watch()
        reader, self._gpu = self._gpu, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> StateSampler:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _end_watch(self) -> list[dict[str, Any]]:
        watch, self._watch = self._watch, None
        return watch.end() if watch is not None else []


def _add_gpu(state: dict[str, Any], looks: list[dict[str, Any]]) -> None:
    """What looks at the GPU showed, beside what the CPU did."""
    for key in SPREADS:
        _add_spread(state, key, [float(look[key]) for look in looks if look.get(key) is not None])
    reasons = [look["reasons"] for look in looks if look.get("reasons") is not None]
    if reasons:
        seen = slowing(name for names in reasons for name in names)
        state["throttle"] = [*state.get("throttle", []), *seen]


def _add_spread(state: dict[str, Any], key: str, values: list[float]) -> None:
    """[lowest, median, highest], where there are values."""
    if values:
        state[key] = [min(values), round(float(statistics.median(values)), 3), max(values)]


class _Watch(threading.Thread):
    """Looks at the GPU now and then until `end()`, which returns what it saw."""

    def __init__(self, gpu: GpuReader, period_s: float) -> None:
        super().__init__(name="gpu-state", daemon=True)
        self._gpu, self._period_s = gpu, period_s
        self._looks: list[dict[str, Any]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        pause = self._period_s
        while not self._ended.wait(pause):
            begun = time.perf_counter()
            self._looks.append(self._gpu.state())
            pause = max(self._period_s, REST * (time.perf_counter() - begun))

    def end(self) -> list[dict[str, Any]]:
        self._ended.set()
        self.join(JOIN_TIMEOUT_S)
        return list(self._looks)
