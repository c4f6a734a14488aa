"""GPUs read through a made-up nvidia-smi."""

from __future__ import annotations

import pytest

from benchmarks.machine.gpu_choice import NoGpu, short_hash
from benchmarks.machine.gpu_smi import SmiReader
from tests.support.fake_machine import SMI_VALUES, FakeSmi


def test_nvidia_smi_tells_all() -> None:
    smi = FakeSmi()
    reader = SmiReader(0, {}, smi)
    assert reader.facts() == {
        "name": "NVIDIA GeForce RTX 4090",
        "uuid_sha256": short_hash(smi.uuid(0)),
        "index": 0,
        "sure": True,
        "driver": "535.183.01",
        "compute_capability": "8.9",
        "compute_mode": "exclusive process",
        "memory_mib": 24564,
        "power_limit_w": 450,
        "max_sm_clock_mhz": 3105,
        "max_memory_clock_mhz": 10501,
        "application_sm_clock_mhz": None,
        "application_memory_clock_mhz": None,
        "pcie_generation": 1,
        "pcie_generation_max": 4,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "persistence": False,
        "ecc": None,
        "mig": None,
    }
    assert reader.state() == {
        "sm_clock_mhz": 2520,
        "memory_clock_mhz": 10251,
        "power_w": 318.42,
        "temperature_c": 71,
        "utilization_percent": 99,
        "reasons": ["sw_power_cap", "sw_thermal_slowdown"],
        "pstate": "P2",
    }
    assert reader.other_processes() == 1


@pytest.mark.parametrize("known", ["clocks_event_reasons.active", "clocks_throttle_reasons.active"])
def test_fields_that_an_nvidia_smi_does_not_know_are_left_out_and_not_asked_again(known: str) -> None:
    reasons = {"clocks_event_reasons.active", "clocks_throttle_reasons.active"}
    smi = FakeSmi(unknown=[*(reasons - {known}), "utilization.gpu", "compute_cap"])
    reader = SmiReader(0, {}, smi)
    state = reader.state()
    assert state["reasons"] == ["sw_power_cap", "sw_thermal_slowdown"]
    assert (state["utilization_percent"], state["sm_clock_mhz"], state["pstate"]) == (None, 2520, "P2")
    assert (reader.facts()["compute_capability"], reader.facts()["driver"]) == (None, "535.183.01")
    asked = len(smi.calls)
    assert reader.state() == state
    assert len(smi.calls) == asked + 1


@pytest.mark.parametrize(
    "value", ["[N/A]", "N/A", "[Not Supported]", "Not Supported", "[Unknown Error]", "", "[GPU is lost]", "nan"]
)
def test_what_nvidia_smi_cannot_tell_is_none(value: str) -> None:
    reader = SmiReader(0, {}, FakeSmi(values=dict.fromkeys(SMI_VALUES, value)))
    facts = {**reader.facts(), **reader.state()}
    known = {"name", "uuid_sha256", "index", "sure"} | (
        {"driver", "compute_capability", "compute_mode", "pstate"} if value == "nan" else set()
    )
    assert {key for key, value_ in facts.items() if value_ is not None} == known


def test_a_refusal_of_every_field_ends() -> None:
    reader = SmiReader(0, {}, FakeSmi(unknown=list(SMI_VALUES)))
    assert set(reader.state().values()) == {None}


def test_nvidia_smi_reads_the_gpu_that_cuda_uses() -> None:
    smi = FakeSmi(gpus=("A", "A", "A"))
    assert SmiReader(0, {"CUDA_VISIBLE_DEVICES": smi.uuid(2)[:6]}, smi).facts()["index"] == 2
    assert "--id=2" in smi.calls[-1]


def test_in_windows_subsystem_for_linux_it_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    reader = SmiReader(0, {}, FakeSmi(program="/usr/lib/wsl/lib/nvidia-smi"))
    assert reader.state()["sm_clock_mhz"] == 2520


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (None, "not installed"),
        ((9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"), "couldn't communicate"),
        ((0, "No devices were found\n"), "No devices were found"),
        ((6, ""), "exit status 6"),
    ],
)
def test_nvidia_smi_that_does_not_work_says_why(answer: tuple[int, str] | None, match: str) -> None:
    with pytest.raises(NoGpu, match=match):
        SmiReader(0, {}, lambda words: answer)


def test_a_program_that_breaks_down_later_tells_nothing() -> None:
    smi = FakeSmi()
    reader = SmiReader(0, {}, smi)
    for answer in (None, (15, ""), (0, ""), (0, "1, 2\n")):
        reader._run = lambda words, answer=answer: answer  # type: ignore[misc]
        assert set(reader.state().values()) == {None}
    reader._run = lambda words: None
    assert reader.other_processes() is None
