"""What the CPU's clocks and thermometers show at this moment; empty or None where they cannot be read."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.machine.cpu_info import CPUS, is_virtual
from benchmarks.machine.plain_files import entries, number, text, to_number

PLAUSIBLE_C = (-40.0, 150.0)  # a sensor that is off shows -256 C


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def clocks_mhz(cpus: list[int] | None = None, root: Path = Path("/")) -> list[float]:
    """The present clocks of `cpus` (by default those usable here). Empty where they are not visible, as in most virtual
    machines: their /proc/cpuinfo shows a constant."""
    wanted = set(usable_cpus() if cpus is None else cpus)
    shown: dict[int, float] = {}
    if not is_virtual(root):
        cpu = -1
        for line in (text(root / "proc/cpuinfo") or "").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "processor":
                cpu = int(to_number(value) or 0)
            elif name.strip() == "cpu MHz" and (mhz := to_number(value)):
                shown[cpu] = mhz
    if not shown:  # Arm, and virtual machines that do let their clocks be seen
        read = {cpu: number(root / CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in wanted}
        shown = {cpu: khz / 1000 for cpu, khz in read.items() if khz}
    return [round(shown[cpu], 1) for cpu in sorted(wanted & set(shown))]


def temperatures_c(root: Path = Path("/")) -> dict[str, float]:
    """The temperatures of all thermal zones and of the CPU's hardware monitors, by name; the highest where names repeat."""
    sensors = [(text(zone / "type"), number(zone / "temp")) for zone in entries(root / "sys/class/thermal", "thermal_zone*")]
    for monitor in entries(root / "sys/class/hwmon", "hwmon*"):
        if (name := text(monitor / "name")) in ("coretemp", "k10temp", "zenpower"):
            sensors += [(f"cpu-{name}", number(path)) for path in entries(monitor, "temp*_input")]
    highest: dict[str, float] = {}
    for name, millidegrees in sensors:
        if name is not None and millidegrees is not None and PLAUSIBLE_C[0] < millidegrees / 1000 < PLAUSIBLE_C[1]:
            highest[name] = max(millidegrees / 1000, highest.get(name, PLAUSIBLE_C[0]))
    return highest


def cpu_temperature_c(root: Path = Path("/")) -> float | None:
    """The highest temperature of a sensor that is the CPU's by its name."""
    of_cpu = [value for name, value in temperatures_c(root).items() if "cpu" in name.lower() or "x86_pkg" in name]
    return max(of_cpu, default=None)


def clock_when_busy_mhz(root: Path = Path("/"), seconds: float = 0.05) -> float | None:
    """The highest clock after `seconds` of work on one core: an idle core's clock says nothing about what it can do."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return max(clocks_mhz(root=root), default=None)
