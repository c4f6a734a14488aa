"""What a CPU is, from files of made-up machines."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from benchmarks.machine import cpu_info
from tests.support.fake_machine import CPUS, jetson, lay


def two_sockets(root: Path) -> Path:
    """8 logical CPUs: 2 sockets of 2 cores of 2 threads, a last-level cache per socket."""
    for cpu in range(8):
        socket, core = cpu // 4, cpu % 4 // 2
        folder = f"{CPUS}/cpu{cpu}"
        lay(root, {f"{folder}/topology/physical_package_id": socket, f"{folder}/topology/core_id": core})
        pair, four = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", f"{socket * 4}-{socket * 4 + 3}"
        shapes = [(1, "Data", "48K", pair), (1, "Instruction", "32K", pair), (2, "Unified", "2048K", pair)]
        for index, (level, kind, size, shared) in enumerate([*shapes, (3, "Unified", "36864K", four)]):
            place = f"{folder}/cache/index{index}"
            lay(root, {f"{place}/level": level, f"{place}/type": kind, f"{place}/size": size})
            lay(root, {f"{place}/shared_cpu_list": shared})
    lay(root, {f"{CPUS}/cpufreq/boost": 1, f"{CPUS}/cpuidle/current_driver": "none"})
    return root


def test_sockets_cores_and_caches_are_counted(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    assert cpu_info.topology(tmp_path) == {"sockets": 2, "physical_cores": 4}
    assert cpu_info.caches(tmp_path) == {
        "l1d_kib": 48,
        "l2_kib": 2048,
        "last_level_kib": 36864,
        "last_level": 3,
        "last_level_instances": 2,
    }


def test_the_policy_of_the_clocks(tmp_path: Path) -> None:
    for cpu, (governor, low, high) in enumerate([("performance", 800000, 4800000), ("powersave", 400000, 3600000)]):
        policy = f"{CPUS}/cpu{cpu}/cpufreq"
        lay(tmp_path, {f"{policy}/scaling_governor": f"{governor}\n", f"{policy}/scaling_driver": "intel_pstate\n"})
        lay(tmp_path, {f"{policy}/scaling_min_freq": low, f"{policy}/scaling_max_freq": high})
    lay(tmp_path, {f"{CPUS}/intel_pstate/no_turbo": "0\n", f"{CPUS}/cpufreq/boost": "0\n"})
    assert cpu_info.clock_policy(tmp_path) == {
        "governor": "performance, powersave",
        "driver": "intel_pstate",
        "min_mhz": 400.0,
        "max_mhz": 4800.0,
        "turbo": True,
    }


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"intel_pstate/no_turbo": 1}, False),
        ({"intel_pstate/no_turbo": 0}, True),
        ({"cpufreq/boost": 1}, True),
        ({"cpufreq/boost": 0}, False),
        ({"cpufreq/boost": "?"}, None),
        ({}, None),
    ],
)
def test_turbo(tmp_path: Path, files: dict[str, object], turbo: bool | None) -> None:
    lay(tmp_path, {f"{CPUS}/{name}": value for name, value in files.items()})
    assert cpu_info.clock_policy(tmp_path)["turbo"] is turbo


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC 9654\n", "AMD EPYC 9654"),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd42\n", "Cortex-A78AE"),
        ("processor : 0\nCPU implementer : 0x51\nCPU part : 0x001\n", "Arm part 0x001 of 0x51"),
    ],
)
def test_the_cpus_name(tmp_path: Path, content: str, name: str) -> None:
    lay(tmp_path, {"proc/cpuinfo": content})
    assert cpu_info.model(tmp_path) == name


def test_a_cpu_without_a_name_is_at_least_an_architecture(tmp_path: Path) -> None:
    assert cpu_info.model(tmp_path) in (platform.processor(), platform.machine())


def test_a_jetson_names_its_board(tmp_path: Path) -> None:
    assert cpu_info.board(jetson(tmp_path)) == "NVIDIA Jetson AGX Orin Developer Kit"


@pytest.mark.parametrize(
    ("files", "virtual"),
    [
        ({"proc/cpuinfo": "flags : fpu hypervisor sse"}, True),
        ({"proc/cpuinfo": "flags : fpu sse"}, False),
        ({"sys/hypervisor/type": "xen"}, True),
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, True),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc."}, None),
        ({}, None),
    ],
)
def test_virtual_machines(tmp_path: Path, files: dict[str, object], virtual: bool | None) -> None:
    assert cpu_info.is_virtual(lay(tmp_path, files)) is virtual


@pytest.mark.parametrize(
    ("supplies", "on_battery"),
    [
        ([{"type": "Mains", "online": 1}, {"type": "Battery", "status": "Charging"}], False),
        ([{"type": "Mains", "online": 0}, {"type": "Battery", "status": "Discharging"}], True),
        ([{"type": "Battery", "status": "Discharging", "scope": "Device"}], None),
        ([{"type": "Battery", "status": "Full"}], False),
        ([{"type": "Mains", "online": 1}], False),
        ([], None),
    ],
)
def test_batteries(tmp_path: Path, supplies: list[dict[str, object]], on_battery: bool | None) -> None:
    for place, supply in enumerate(supplies):
        lay(tmp_path, {f"sys/class/power_supply/S{place}/{name}": value for name, value in supply.items()})
    assert cpu_info.on_battery(tmp_path) is on_battery
