"""Machines in a folder: the files of /proc and /sys that the tests need, an NVML and an nvidia-smi that are made up."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

CPUS = "sys/devices/system/cpu"


def lay(root: Path, files: Mapping[str, object]) -> Path:
    """Write `files`, by path under `root`; returns `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content), encoding="utf-8")
    return root


def stat_line(user: int = 0, nice: int = 0, system: int = 0, irq: int = 0, softirq: int = 0, steal: int = 0) -> str:
    """/proc/stat in ticks, with idle and guest times that must not count."""
    return f"cpu  {user} {nice} {system} 99999 777 {irq} {softirq} {steal} 55 44\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n"


def process(pid: int, ticks: Sequence[int], children: Mapping[int, Sequence[int]] | None = None) -> dict[str, object]:
    """Files of a process: user, system, waited user, waited system ticks; children by thread."""
    user, system, waited_user, waited_system = ticks
    name = "a (strange) name"
    head = f"{pid} ({name}) R 1 1 1 0 -1 4194304 100 200 300 400"
    files: dict[str, object] = {f"proc/{pid}/stat": f"{head} {user} {system} {waited_user} {waited_system} 20 0 1 0 5 6 7\n"}
    for thread, pids in ({pid: ()} if children is None else children).items():
        files[f"proc/{pid}/task/{thread}/children"] = " ".join(map(str, pids)) + " "
    return files


class NVMLError(Exception):
    """As pynvml's."""


NOT_SUPPORTED = NVMLError("Not Supported")


def fake_pynvml(monkeypatch: pytest.MonkeyPatch, gpus: Sequence[Mapping[str, Any]], **system: Any) -> list[str]:
    """Install a `pynvml` whose GPUs answer what `gpus` say, by the function's name without `nvmlDevice`; returns the log of
    calls. A value that is an exception is raised; what is absent is a function that this driver lacks. For clocks, a value
    is [by type]."""
    module = ModuleType("pynvml")
    constants = {"NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2, "NVML_TEMPERATURE_GPU": 0, "NVML_FEATURE_ENABLED": 1}
    calls: list[str] = []

    def answer(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else value

    def of_device(name: str) -> Any:
        def function(handle: int, *arguments: int) -> Any:
            calls.append(f"nvmlDevice{name}")
            if name not in gpus[handle]:
                raise NVMLError("Function Not Found")
            value = answer(gpus[handle][name])
            return value[arguments[0]] if isinstance(value, dict) else value

        return function

    def of_system(name: str) -> Any:
        def function() -> Any:
            calls.append(f"nvml{name}")
            return answer(system.get(name))

        return function

    by_index = lambda index: index  # noqa: E731
    functions = {f"nvmlDevice{name}": of_device(name) for gpu in gpus for name in gpu}
    functions |= {f"nvml{name}": of_system(name) for name in ("Init", "Shutdown", *system)}
    functions |= {"nvmlDeviceGetCount": lambda: len(gpus), "nvmlDeviceGetHandleByIndex": by_index}
    for name, value in {**constants, **functions, "NVMLError": NVMLError}.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def no_pynvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nvidia-ml-py were not installed."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


H200 = {
    "GetName": "NVIDIA H200",
    "GetUUID": "GPU-11111111-2222-3333-4444-555555555555",
    "GetMemoryInfo": SimpleNamespace(total=143771 * 2**20, free=1, used=1),
    "GetCudaComputeCapability": (9, 0),
    "GetComputeMode": 0,
    "GetPersistenceMode": 1,
    "GetEnforcedPowerLimit": 700000,
    "GetMaxClockInfo": {1: 1980, 2: 3201},
    "GetApplicationsClock": {1: 1980, 2: 3201},
    "GetClockInfo": {1: 1755, 2: 3201},
    "GetEccMode": [1, 1],
    "GetMigMode": [0, 0],
    "GetCurrPcieLinkGeneration": 5,
    "GetMaxPcieLinkGeneration": 5,
    "GetCurrPcieLinkWidth": 16,
    "GetMaxPcieLinkWidth": 16,
    "GetPowerUsage": 412345,
    "GetTemperature": 61,
    "GetCurrentClocksEventReasons": 0x4,
    "GetPerformanceState": 0,
    "GetUtilizationRates": SimpleNamespace(gpu=97, memory=40),
    "GetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=4)],
}

SMI_VALUES = {
    "memory.total": "24564",
    "enforced.power.limit": "450.00",
    "clocks.max.sm": "3105",
    "clocks.max.memory": "10501",
    "clocks.applications.graphics": "[Requested functionality has been deprecated]",
    "clocks.applications.memory": "[N/A]",
    "pcie.link.gen.current": "1",
    "pcie.link.gen.max": "4",
    "pcie.link.width.current": "16",
    "pcie.link.width.max": "16",
    "persistence_mode": "Disabled",
    "ecc.mode.current": "[N/A]",
    "mig.mode.current": "[N/A]",
    "driver_version": "535.183.01",
    "compute_cap": "8.9",
    "compute_mode": "Exclusive_Process",
    "clocks.current.sm": "2520",
    "clocks.current.memory": "10251",
    "power.draw": "318.42",
    "temperature.gpu": "71",
    "utilization.gpu": "99",
    "pstate": "P2",
    "clocks_event_reasons.active": "0x0000000000000024",
    "clocks_throttle_reasons.active": "0x0000000000000024",
}


class FakeSmi:
    """Answers as nvidia-smi does: CSV lines; a refusal that names a field that it does not know; or nothing at all."""

    def __init__(
        self,
        gpus: Sequence[str] = ("NVIDIA GeForce RTX 4090",),
        values: Mapping[str, str] = SMI_VALUES,
        unknown: Sequence[str] = (),
        program: str = "nvidia-smi",
    ) -> None:
        self.gpus, self.values, self.unknown, self.program = gpus, values, unknown, program
        self.calls: list[list[str]] = []

    def uuid(self, index: int) -> str:
        return f"GPU-{index}{'0' * 7}-aaaa-bbbb-cccc-0123456789ab"

    def __call__(self, words: Sequence[str]) -> tuple[int, str] | None:
        self.calls.append(list(words))
        if words[0] != self.program:
            return None
        options = dict(word.removeprefix("--").split("=", 1) for word in words[1:])
        if "query-compute-apps" in options:
            return 0, f"{os.getpid()}\n123456789\n"
        fields = options["query-gpu"].split(",")
        for field in fields:
            if field in self.unknown:
                return 2, f'Field "{field}" is not a valid field to query.\n\n'
        if "id" not in options:
            return 0, "".join(f"{index}, {self.uuid(index)}, {name}\n" for index, name in enumerate(self.gpus))
        return 0, ", ".join(self.values[field] for field in fields) + "\n"


def jetson(root: Path) -> Path:
    """An Orin."""
    gpu, zone = "sys/class/devfreq/17000000.ga10b", "sys/class/thermal/thermal_zone"
    files = {
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64",
        f"{gpu}/cur_freq": "918000000",
        f"{gpu}/min_freq": "306000000",
        f"{gpu}/max_freq": "1300500000",
        f"{gpu}/governor": "nvhost_podgov",
        "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
        f"{zone}0/type": "CPU-therm",
        f"{zone}0/temp": "52500",
        f"{zone}1/type": "GPU-therm",
        f"{zone}1/temp": "49000",
        f"{zone}2/type": "CV0-therm",
        f"{zone}2/temp": "-256000",
    }
    return lay(root, files)
