"""What a round's sampler tells: counters at both ends on a CPU, looks in between on a GPU."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine.gpu_choice import NoGpu
from benchmarks.machine.gpu_state import GpuReader
from benchmarks.machine.sampler import StateSampler
from tests.support.fake_machine import CPUS, lay, process, stat_line


class FakeGpu:
    """Shows its states one after the other, then the last for ever."""

    source = "fake"

    def __init__(self, states: Sequence[dict[str, Any]], in_background: bool = True, takes_s: float = 0.0) -> None:
        self.states, self.in_background, self.takes_s = list(states), in_background, takes_s
        self.looks: list[str] = []
        self.looked, self.closed = threading.Event(), 0
        self.enough = len(states)

    def facts(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        self.looks.append(threading.current_thread().name)
        if len(self.looks) >= self.enough:
            self.looked.set()
        time.sleep(self.takes_s)
        return self.states[min(len(self.looks), len(self.states)) - 1]

    def other_processes(self) -> int | None:
        return None

    def close(self) -> None:
        self.closed += 1


def seen(clock: float, reasons: list[str] | None, power: float | None = 300.0) -> dict[str, Any]:
    return {"sm_clock_mhz": clock, "memory_clock_mhz": 3201, "power_w": power, "temperature_c": 60, "reasons": reasons}


def on(gpu: FakeGpu, root: Path, period_s: float = 0.001) -> StateSampler:
    return StateSampler("cuda", root, lambda device: gpu, period_s)


def gpu_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gpu-state"]


def test_a_cpus_round_is_its_counters_clock_and_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0])
    monkeypatch.setattr("benchmarks.machine.sampler.read_counters", lambda root: _read(root, next(times)))
    monkeypatch.setattr("benchmarks.machine.cpu_sensors.usable_cpus", lambda: [0, 1, 2])
    zone = "sys/class/thermal/thermal_zone0"
    lay(tmp_path, {f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": khz for cpu, khz in enumerate((800000, 4000000, 1000000))})
    lay(tmp_path, {"proc/stat": stat_line(user=100), **process(os.getpid(), (50, 0, 0, 0))})
    lay(
        tmp_path,
        {f"{zone}/type": "cpu-thermal", f"{zone}/temp": 50000, f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": 3},
    )
    sampler = StateSampler("cpu", tmp_path)
    sampler.start()
    lay(tmp_path, {"proc/stat": stat_line(user=380, steal=10), **process(os.getpid(), (250, 0, 0, 0))})
    lay(tmp_path, {f"{zone}/temp": 70000, f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": 4})
    state = sampler.stop()
    assert {key: state.pop(key) >= 0 for key in ("voluntary_switches", "involuntary_switches")}
    assert state == {
        "other_load": 0.4,
        "steal": 0.05,
        "throttle": ["cpu_thermal"],
        "temperature_c": [50.0, 60.0, 70.0],
        "cpu_mhz": [800.0, 1000.0, 4000.0],
    }


def _read(root: Path, at: float) -> Any:
    from benchmarks.machine.cpu_state import read_counters

    return read_counters(root, clock=lambda: at)


def test_on_a_cpu_no_gpu_is_opened_and_no_thread_runs(tmp_path: Path) -> None:
    def refuse(device: int) -> GpuReader:
        raise AssertionError("opened a GPU")

    before = threading.active_count()
    with StateSampler("cpu", tmp_path, refuse) as sampler:
        assert threading.active_count() == before
    assert not {"other_load", "throttle", "cpu_mhz", "temperature_c", "sm_clock_mhz"} & set(sampler.state)


def test_a_gpus_round_is_what_was_seen_during_it(tmp_path: Path) -> None:
    states = [seen(1980, ["sw_power_cap"]), seen(1700, ["gpu_idle"], None), seen(1755, ["hw_slowdown", "sw_power_cap"], 500.0)]
    gpu = FakeGpu([*states, states[-1]])
    sampler = on(gpu, tmp_path)
    sampler.start()
    assert gpu.looked.wait(10)
    state = sampler.stop()
    assert set(gpu.looks) == {"gpu-state"}
    assert state["throttle"] == ["hw_slowdown", "sw_power_cap"]
    assert state["sm_clock_mhz"][::2] == [1700, 1980]
    assert state["sm_clock_mhz"][1] == 1755
    assert state["power_w"][::2] == [300, 500]
    assert (state["memory_clock_mhz"], state["temperature_c"]) == ([3201] * 3, [60] * 3)
    assert not gpu_threads()


def test_a_round_shorter_than_a_period_is_seen_at_its_end(tmp_path: Path) -> None:
    gpu = FakeGpu([seen(1980, [])])
    with on(gpu, tmp_path, 60.0) as sampler:
        assert gpu.looks == []
    assert gpu.looks == ["MainThread"]
    assert (sampler.state["sm_clock_mhz"], sampler.state["throttle"]) == ([1980] * 3, [])


def test_a_reader_that_starts_programs_looks_at_the_end_only(tmp_path: Path) -> None:
    gpu = FakeGpu([seen(1980, ["gpu_idle"])], in_background=False)
    with on(gpu, tmp_path):
        assert not gpu_threads()
        time.sleep(0.02)
    assert gpu.looks == ["MainThread"]


def test_looks_that_take_long_are_rare(tmp_path: Path) -> None:
    """2 ms each, so one in 100 ms at most, although the period is 1 ms."""
    gpu = FakeGpu([seen(1980, [])], takes_s=0.002)
    begun = time.monotonic()
    with on(gpu, tmp_path):
        time.sleep(0.35)
    assert 1 <= len(gpu.looks) <= (time.monotonic() - begun) / 0.1 + 1


def test_what_a_gpu_does_not_tell_is_absent(tmp_path: Path) -> None:
    with on(FakeGpu([{"sm_clock_mhz": 918.0, "temperature_c": None}], in_background=False), tmp_path) as sampler:
        pass
    assert sampler.state["sm_clock_mhz"] == [918.0] * 3
    assert not {"throttle", "power_w", "temperature_c", "memory_clock_mhz"} & set(sampler.state)


def test_reasons_of_the_cpu_and_the_gpu_stand_side_by_side(tmp_path: Path) -> None:
    counter = f"{CPUS}/cpu0/thermal_throttle/core_throttle_count"
    lay(tmp_path, {counter: 1})
    with on(FakeGpu([seen(1980, ["sw_power_cap"])], in_background=False), tmp_path) as sampler:
        lay(tmp_path, {counter: 2})
    assert sampler.state["throttle"] == ["cpu_thermal", "sw_power_cap"]


def test_a_gpu_that_cannot_be_read_leaves_the_cpus_part(tmp_path: Path) -> None:
    def none(device: int) -> GpuReader:
        raise NoGpu("no driver")

    lay(tmp_path, {"proc/stat": stat_line(), "sys/class/thermal/thermal_zone0/type": "cpu-thermal"})
    with StateSampler("cuda", tmp_path, none) as sampler:
        pass
    assert "sm_clock_mhz" not in sampler.state


def test_the_device_is_the_one_named(tmp_path: Path) -> None:
    asked = []

    def opener(device: int) -> GpuReader:
        asked.append(device)
        return FakeGpu([{}])

    for name in ("cpu", "cuda", "cuda:0", "cuda:3"):
        StateSampler(name, tmp_path, opener).close()
    assert asked == [0, 0, 3]


def test_rounds_follow_each_other_and_an_abandoned_one_is_forgotten(tmp_path: Path) -> None:
    gpu = FakeGpu([seen(1000, ["hw_slowdown"]), seen(2000, [])])
    sampler = on(gpu, tmp_path, 60.0)
    sampler.start()
    sampler.start()
    assert len(gpu_threads()) == 1
    assert sampler.stop()["throttle"] == ["hw_slowdown"]
    sampler.start()
    assert sampler.stop()["sm_clock_mhz"] == [2000] * 3
    sampler.start()
    sampler.close()
    sampler.close()
    assert (gpu.closed, gpu_threads()) == (1, [])


def test_an_error_in_the_block_goes_on_and_ends_the_thread(tmp_path: Path) -> None:
    with pytest.raises(KeyError), on(FakeGpu([seen(1, [])]), tmp_path):
        raise KeyError("x")
    assert not gpu_threads()


def test_on_this_machine_a_round_has_plain_values() -> None:
    with StateSampler("cpu") as sampler:
        time.sleep(0.3)
    assert json.loads(json.dumps(sampler.state, allow_nan=False)) == sampler.state
    if os.path.exists("/proc/stat"):
        assert 0 <= sampler.state["other_load"] <= (os.cpu_count() or 1) + 0.1
