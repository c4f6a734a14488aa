"""What is told about a recorded machine, and what makes figures doubtful."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.machine.environment import environment
from benchmarks.machine.notes import describe, notes

WORKSTATION: dict[str, Any] = {
    "cpu": "Xeon w5",
    "machine": "Tower 7",
    "cores": 24,
    "sockets": 1,
    "physical_cores": 12,
    "usable_cpus": 24,
    "affinity": "0-23",
    "cpu_quota_cores": None,
    "caches": {"l1d_kib": 48, "l2_kib": 2048, "last_level": 3, "last_level_kib": 30720, "last_level_instances": 1},
    "memory_mib": 131072,
    "memory_limit_mib": None,
    "virtual": False,
    "on_battery": None,
    "other_load": 0.02,
    "steal": 0.0,
    "throttle_counts": {"thermal": 5, "quota": 0},
    "clocks": {"governor": "performance", "min_mhz": 800.0, "max_mhz": 4800.0, "turbo": True, "busy_mhz": 4600.0},
    "gpu": {
        "name": "NVIDIA RTX A4000",
        "sure": True,
        "driver": "570.86.15",
        "memory_mib": 16376,
        "max_sm_clock_mhz": 2100,
        "max_memory_clock_mhz": 7001,
        "power_limit_w": 140.0,
        "ecc": False,
        "mig": None,
        "other_processes": 0,
        "state": {"sm_clock_mhz": 1560, "memory_clock_mhz": 6500, "reasons": []},
    },
    "gpu_reason": None,
    "system": "Linux-6.8",
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
    "commit": "abc",
    "variables": {"OMP_NUM_THREADS": "4"},
}


def changed(**parts: Any) -> dict[str, Any]:
    """WORKSTATION with parts replaced; mappings are merged, two levels deep."""
    machine: dict[str, Any] = json.loads(json.dumps(WORKSTATION))
    for name, value in parts.items():
        if isinstance(value, Mapping) and isinstance(machine.get(name), dict):
            for key, inner in value.items():
                machine[name][key] = {**machine[name][key], **inner} if isinstance(inner, Mapping) else inner
        else:
            machine[name] = value
    return machine


def test_the_head_of_a_report() -> None:
    assert describe(WORKSTATION) == [
        "CPU: Xeon w5, Tower 7, 1 socket, 12 cores, 24 logical CPUs, L1d 48 KiB, L2 2 MiB, L3 30 MiB, memory 128.0 GiB",
        "CPU clocks: governor performance, 800 to 4800 MHz, 4.6 GHz when busy, turbo on",
        "GPU: NVIDIA RTX A4000, 16 GiB, driver 570.86.15, SM clock up to 2100 MHz, memory clock up to 7001 MHz, "
        "power limit 140 W, ECC off",
        "System: Linux-6.8, Python 3.11.7, torch 2.14.1, numpy 2.4.6",
        "Set: OMP_NUM_THREADS=4",
        "Commit: abc",
    ]


def test_limits_are_told() -> None:
    limited = changed(usable_cpus=4, affinity="0-1,4-5", cpu_quota_cores=1.5, memory_limit_mib=4096.0)
    assert "Limited to: CPUs 0-1,4-5, CPU time of 1.5 cores, memory 4.0 GiB" in describe(limited)


def test_a_machine_without_gpu_and_without_clocks() -> None:
    lines = describe({"cpu": "X", "virtual": True, "clocks": {"governor": None}, "gpu": None, "gpu_reason": "no driver"})
    assert lines == ["CPU: X, a virtual machine", "CPU clocks: not visible here", "GPU: none seen (no driver)"]


def test_environments_of_earlier_versions_are_described() -> None:
    old = {"cpu": "X", "cores": 2, "memory": "24684084 kB", "load_average": None, "python": "3.11", "packages": {}}
    assert describe(old) == ["CPU: X, 2 logical CPUs", "System: Python 3.11"]
    assert describe({}) == [] == notes({}, {})


def test_this_machine_is_described() -> None:
    machine = environment()
    assert describe(machine)[0].startswith("CPU: ")
    assert all(isinstance(note, str) for note in notes(machine, machine))


def test_a_quiet_machine_raises_no_doubt() -> None:
    assert notes(WORKSTATION, WORKSTATION) == []


@pytest.mark.parametrize(
    ("before", "after", "doubt"),
    [
        ({"clocks": {"governor": "powersave"}}, {}, "governor is powersave"),
        ({"virtual": True}, {}, "virtual machine"),
        ({"cpu_quota_cores": 2.0}, {}, "only 2 cores' worth of CPU time is allowed on 24 CPUs"),
        ({"on_battery": True}, {}, "battery"),
        ({"gpu": {"sure": False}}, {}, "not certain"),
        ({"gpu": {"other_processes": 2}}, {}, "had the GPU open: 2"),
        ({"other_load": 0.21}, {}, "kept 0.2 cores busy"),
        ({}, {"other_load": 1.5}, "kept 1.5 cores busy"),
        ({}, {"steal": 0.5}, "hypervisor gave 0.5"),
        ({}, {"throttle_counts": {"thermal": 8}}, "slowed down for heat 3 times"),
        ({}, {"throttle_counts": {"quota": 2}}, "CPU time was used up 2 times"),
        ({}, {"gpu": {"state": {"reasons": ["hw_slowdown", "gpu_idle"]}}}, "held down before or after: hw_slowdown."),
        ({}, {"clocks": {"busy_mhz": 4300.0}}, "CPU's clock was 4600 MHz before and 4300 MHz after"),
        ({}, {"gpu": {"state": {"sm_clock_mhz": 1400}}}, "GPU's SM clock was 1560 MHz before and 1400 MHz after"),
        ({}, {"gpu": {"state": {"memory_clock_mhz": 7001}}}, "GPU's memory clock was 6500 MHz before and 7001 MHz after"),
    ],
)
def test_each_doubt_is_told_alone(before: dict[str, Any], after: dict[str, Any], doubt: str) -> None:
    said = notes(changed(**before), changed(**after))
    assert len(said) == 1 and doubt in said[0]
    assert said[0].endswith(".")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"other_load": 0.19}, {"other_load": 0.2}),
        ({"cpu_quota_cores": 24.0}, {}),
        ({}, {"clocks": {"busy_mhz": 4600.0 * 0.951}}),
        ({}, {"clocks": {"busy_mhz": None}}),
        ({"gpu": {"state": {"reasons": ["gpu_idle"]}}}, {"gpu": {"state": {"sm_clock_mhz": 210}}}),
        ({}, {"gpu": {"state": {"sm_clock_mhz": 210, "reasons": None}}}),
        ({"gpu": {"state": {"reasons": ["applications_clocks_setting"]}}}, {}),
        ({}, {"throttle_counts": {"thermal": None}}),
        ({"throttle_counts": {"thermal": None}}, {"throttle_counts": {"thermal": None}}),
        ({}, {"gpu": {"other_processes": 1}}),
    ],
)
def test_what_is_no_doubt_is_not_told(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert notes(changed(**before), changed(**after)) == []
