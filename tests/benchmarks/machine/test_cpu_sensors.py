"""Clocks and thermometers of a CPU, laid out in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine.cpu_sensors import clock_when_busy_mhz, clocks_mhz, cpu_temperature_c, temperatures_c
from tests.support.fake_machine import CPUS, lay


def cpuinfo(mhz: list[float], flags: str = "fpu sse") -> str:
    return "".join(f"processor\t: {cpu}\nflags\t\t: {flags}\ncpu MHz\t\t: {value}\n\n" for cpu, value in enumerate(mhz))


def test_clocks_of_the_wanted_cpus_come_from_cpuinfo(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/cpuinfo": cpuinfo([800.0, 4700.123, 3000.0])})
    assert clocks_mhz([1, 2], tmp_path) == [4700.1, 3000.0]
    assert clocks_mhz([7], tmp_path) == []


def test_arm_shows_its_clocks_in_cpufreq(tmp_path: Path) -> None:
    lay(tmp_path, {f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": khz for cpu, khz in {0: 729600, 1: 2201600, 2: "x"}.items()})
    assert clocks_mhz([0, 1, 2, 3], tmp_path) == [729.6, 2201.6]


def test_the_constant_of_a_virtual_machine_is_no_clock(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/cpuinfo": cpuinfo([2600.0], "fpu hypervisor")})
    assert clocks_mhz([0], tmp_path) == []
    assert clock_when_busy_mhz(tmp_path, 0) is None


def test_the_busy_clock_is_the_highest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.cpu_sensors.usable_cpus", lambda: [0, 1])
    lay(tmp_path, {"proc/cpuinfo": cpuinfo([800.0, 4700.0, 5000.0])})
    assert clock_when_busy_mhz(tmp_path, 0) == 4700


def test_the_cpus_temperature_is_its_hottest_sensor_that_is_on(tmp_path: Path) -> None:
    zones = {"acpitz": 99000, "x86_pkg_temp": 61000, "cpu-thermal": -256000, "bad": "n/a"}
    for place, (kind, value) in enumerate(zones.items()):
        lay(
            tmp_path,
            {f"sys/class/thermal/thermal_zone{place}/type": kind, f"sys/class/thermal/thermal_zone{place}/temp": value},
        )
    monitors = "sys/class/hwmon/hwmon"
    lay(tmp_path, {f"{monitors}0/name": "coretemp", f"{monitors}0/temp1_input": 58000, f"{monitors}0/temp2_input": 63500})
    lay(tmp_path, {f"{monitors}1/name": "nvme", f"{monitors}1/temp1_input": 80000})
    assert temperatures_c(tmp_path) == {"acpitz": 99.0, "x86_pkg_temp": 61.0, "cpu-coretemp": 63.5}
    assert cpu_temperature_c(tmp_path) == 63.5
