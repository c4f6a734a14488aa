"""A GPU read through NVML: the package nvidia-ml-py, whose module is `pynvml`. Only questions are asked.

Every question may fail on its own (an old driver, a laptop's GPU, a MIG instance): its answer is then None.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from benchmarks.machine.gpu_choice import Listed, NoGpu, choose, short_hash
from benchmarks.machine.gpu_reasons import reason_names

COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
UNKNOWN_STATE = 32


class NvmlReader:
    """CUDA's device number `device`. Raises NoGpu, with the reason, where NVML or the GPU is not there."""

    source, in_background = "nvml", True  # a reading is a few calls into the driver

    def __init__(self, device: int, variables: Mapping[str, str]) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            raise NoGpu("nvidia-ml-py is not installed") from None
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise NoGpu(f"NVML: {error}") from error
        try:
            self._handle, self._listed, self._sure = self._find(device, variables)
        except (self._nvml.NVMLError, NoGpu) as error:
            self.close()
            raise NoGpu(f"NVML: {error}") from error

    def _find(self, device: int, variables: Mapping[str, str]) -> tuple[Any, Listed, bool]:
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        asked = [(self._text("nvmlDeviceGetUUID", handle), self._text("nvmlDeviceGetName", handle)) for handle in handles]
        listed = [Listed(index, uuid or "", name or "GPU") for index, (uuid, name) in enumerate(asked)]
        chosen, sure = choose(listed, device, variables)
        return handles[chosen.index], chosen, sure

    def facts(self) -> dict[str, Any]:
        """What does not change while work runs."""
        ask, handle = self._ask, self._handle
        memory, capability = ask("nvmlDeviceGetMemoryInfo", handle), ask("nvmlDeviceGetCudaComputeCapability", handle)
        mode = ask("nvmlDeviceGetComputeMode", handle)
        cuda = ask("nvmlSystemGetCudaDriverVersion")
        return {
            "name": self._listed.name,
            "uuid_sha256": short_hash(self._listed.uuid) if self._listed.uuid else None,
            "index": self._listed.index,
            "sure": self._sure,
            "driver": self._text("nvmlSystemGetDriverVersion"),
            "cuda_driver": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            "compute_capability": ".".join(map(str, capability)) if capability else None,
            "memory_mib": round(memory.total / 2**20) if memory else None,
            "compute_mode": COMPUTE_MODES.get(mode),
            "persistence": self._on(ask("nvmlDeviceGetPersistenceMode", handle)),
            "power_limit_w": _thousandths(ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            "max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", handle, self._nvml.NVML_CLOCK_SM),
            "max_memory_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", handle, self._nvml.NVML_CLOCK_MEM),
            "application_sm_clock_mhz": ask("nvmlDeviceGetApplicationsClock", handle, self._nvml.NVML_CLOCK_SM),
            "application_memory_clock_mhz": ask("nvmlDeviceGetApplicationsClock", handle, self._nvml.NVML_CLOCK_MEM),
            "ecc": self._on(_first(ask("nvmlDeviceGetEccMode", handle))),
            "mig": self._on(_first(ask("nvmlDeviceGetMigMode", handle))),
            "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "pcie_generation_max": ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
            "pcie_width_max": ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        }

    def state(self) -> dict[str, Any]:
        """What changes from moment to moment."""
        ask, handle = self._ask, self._handle
        mask = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if mask is None:  # before driver 535
            mask = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        level, utilization = ask("nvmlDeviceGetPerformanceState", handle), ask("nvmlDeviceGetUtilizationRates", handle)
        return {
            "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", handle, self._nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", handle, self._nvml.NVML_CLOCK_MEM),
            "power_w": _thousandths(ask("nvmlDeviceGetPowerUsage", handle)),
            "temperature_c": ask("nvmlDeviceGetTemperature", handle, self._nvml.NVML_TEMPERATURE_GPU),
            "reasons": None if mask is None else reason_names(mask),
            "utilization_percent": utilization.gpu if utilization else None,
            "pstate": None if level is None or level == UNKNOWN_STATE else f"P{level}",
        }

    def other_processes(self) -> int | None:
        """How many other processes compute on the GPU. In a container, where numbers of processes differ from the driver's,
        this one counts too."""
        running = self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle)
        return None if running is None else sum(process.pid != os.getpid() for process in running)

    def close(self) -> None:
        """Let go of the library."""
        self._ask("nvmlShutdown")

    def _ask(self, function: str, *arguments: Any) -> Any:
        """The answer to a question; None where this NVML has no such question, or no answer."""
        asked = getattr(self._nvml, function, None)
        try:
            return asked(*arguments) if asked is not None else None
        except self._nvml.NVMLError:
            return None

    def _text(self, function: str, *arguments: Any) -> str | None:
        answer = self._ask(function, *arguments)
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer  # bytes: pynvml before version 12

    def _on(self, answer: int | None) -> bool | None:
        return None if answer is None else answer == self._nvml.NVML_FEATURE_ENABLED


def _thousandths(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _first(pair: Any) -> Any:
    """What is now, of (what is now, what will be after a reboot)."""
    return None if pair is None else pair[0]
