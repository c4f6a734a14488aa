"""GPUs read through a made-up NVML."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.machine.gpu_choice import NoGpu, short_hash
from benchmarks.machine.gpu_nvml import NvmlReader
from tests.support.fake_machine import H200, NOT_SUPPORTED, NVMLError, fake_pynvml


def test_nvml_tells_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [H200], SystemGetDriverVersion="575.57.08", SystemGetCudaDriverVersion=12090)
    reader = NvmlReader(0, {})
    assert reader.facts() == {
        "name": "NVIDIA H200",
        "uuid_sha256": short_hash(str(H200["GetUUID"])),
        "index": 0,
        "sure": True,
        "driver": "575.57.08",
        "cuda_driver": "12.9",
        "compute_capability": "9.0",
        "memory_mib": 143771,
        "compute_mode": "default",
        "persistence": True,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 3201,
        "application_sm_clock_mhz": 1980,
        "application_memory_clock_mhz": 3201,
        "ecc": True,
        "mig": False,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
    }
    assert reader.state() == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 3201,
        "power_w": 412.345,
        "temperature_c": 61,
        "reasons": ["sw_power_cap"],
        "utilization_percent": 97,
        "pstate": "P0",
    }
    assert reader.other_processes() == 1


def test_what_nvml_cannot_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [dict.fromkeys(H200, NOT_SUPPORTED)], SystemGetDriverVersion=NOT_SUPPORTED)
    reader = NvmlReader(0, {})
    kept = {"name": "GPU", "index": 0, "sure": True}
    assert {key: value for key, value in reader.facts().items() if value is not None} == kept
    assert set(reader.state().values()) == {None}
    assert reader.other_processes() is None


def test_old_drivers_call_reasons_otherwise_and_old_modules_give_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    old: dict[str, Any] = {**H200, "GetName": b"Tesla T4", "GetCurrentClocksThrottleReasons": 0x28}
    del old["GetCurrentClocksEventReasons"], old["GetMigMode"]
    fake_pynvml(monkeypatch, [old], SystemGetDriverVersion=b"450.80.02")
    reader = NvmlReader(0, {})
    assert reader.state()["reasons"] == ["hw_slowdown", "sw_thermal_slowdown"]
    facts = reader.facts()
    assert (facts["name"], facts["driver"], facts["mig"], facts["cuda_driver"]) == ("Tesla T4", "450.80.02", None, None)


def test_an_unknown_performance_state_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [{**H200, "GetPerformanceState": 32, "GetCurrentClocksEventReasons": 0}])
    state = NvmlReader(0, {}).state()
    assert (state["pstate"], state["reasons"]) == (None, [])


def test_nvml_reads_the_gpu_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    second = {**H200, "GetUUID": "GPU-22", "GetClockInfo": {1: 345, 2: 405}}
    fake_pynvml(monkeypatch, [H200, second])
    reader = NvmlReader(0, {"CUDA_VISIBLE_DEVICES": "GPU-22"})
    assert (reader.facts()["index"], reader.state()["sm_clock_mhz"]) == (1, 345)
    assert NvmlReader(1, {}).state()["sm_clock_mhz"] == 345


def test_nvml_without_a_driver_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml(monkeypatch, [], Init=NVMLError("NVML Shared Library Not Found"))
    with pytest.raises(NoGpu, match="NVML Shared Library Not Found"):
        NvmlReader(0, {})


def test_nvml_that_cannot_list_its_gpus_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])

    def lost() -> int:
        raise NVMLError("GPU is lost")

    monkeypatch.setattr("pynvml.nvmlDeviceGetCount", lost)
    with pytest.raises(NoGpu, match="GPU is lost"):
        NvmlReader(0, {})
    assert calls[-1] == "nvmlShutdown"


def test_nvml_is_let_go_of_where_no_gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_pynvml(monkeypatch, [H200])
    with pytest.raises(NoGpu, match="0 of 1"):
        NvmlReader(0, {"CUDA_VISIBLE_DEVICES": ""})
    assert calls[-1] == "nvmlShutdown"
