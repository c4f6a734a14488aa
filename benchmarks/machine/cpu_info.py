"""What the CPU is and how it is set up: model, cores, caches, clock policy. From /proc and /sys; elsewhere mostly None.

Source: the kernel's ABI documents (sysfs-devices-system-cpu, sysfs-class-power) and, for Arm, the part numbers in the main ID
register, which /proc/cpuinfo shows in place of a name.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from benchmarks.machine.plain_files import entries, field, number, text

ARM, NVIDIA = "0x41", "0x4e"
ARM_PARTS = {
    (ARM, "0xd03"): "Cortex-A53",
    (ARM, "0xd07"): "Cortex-A57",
    (ARM, "0xd08"): "Cortex-A72",
    (ARM, "0xd0b"): "Cortex-A76",
    (ARM, "0xd0c"): "Neoverse-N1",
    (ARM, "0xd40"): "Neoverse-V1",
    (ARM, "0xd42"): "Cortex-A78AE",
    (ARM, "0xd49"): "Neoverse-N2",
    (ARM, "0xd4f"): "Neoverse-V2",
    (ARM, "0xd83"): "Neoverse-V3AE",
    (NVIDIA, "0x004"): "Carmel",
}
CPUS = "sys/devices/system/cpu"


def model(root: Path = Path("/")) -> str:
    """The CPU's name."""
    info = root / "proc/cpuinfo"
    implementer, part = field(info, "CPU implementer"), field(info, "CPU part")
    arm = ARM_PARTS.get((implementer, part), f"Arm part {part} of {implementer}") if implementer and part else None
    return field(info, "model name") or arm or platform.processor() or platform.machine()


def board(root: Path = Path("/")) -> str | None:
    """The computer's model, as its device tree or its firmware tells it."""
    return text(root / "proc/device-tree/model") or text(root / "sys/class/dmi/id/product_name")


def topology(root: Path = Path("/")) -> dict[str, int | None]:
    """`sockets` and `physical_cores`."""
    folders = [folder / "topology" for folder in entries(root / CPUS, "cpu[0-9]*")]
    pairs = {(text(folder / "physical_package_id"), text(folder / "core_id")) for folder in folders}
    cores = {(package, core) for package, core in pairs if core is not None}
    return {"sockets": len({package for package, _ in cores}) or None, "physical_cores": len(cores) or None}


def caches(root: Path = Path("/")) -> dict[str, int | None]:
    """Sizes in KiB of one instance each: `l1d_kib`, `l2_kib`, `last_level_kib`; `last_level` is its level,
    `last_level_instances` how many there are."""
    sizes: dict[tuple[int, str], int] = {}
    sharing: dict[int, set[str | None]] = {}
    for index in entries(root / CPUS, "cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size = number(index / "level"), text(index / "type"), text(index / "size") or ""
        if level is None or kind is None or kind == "Instruction" or not (size.endswith("K") and size[:-1].isdigit()):
            continue
        sizes[int(level), kind] = max(int(size[:-1]), sizes.get((int(level), kind), 0))
        sharing.setdefault(int(level), set()).add(text(index / "shared_cpu_list"))
    by_level = {level: size for (level, _), size in sizes.items()}
    last = max(by_level, default=None)
    return {
        "l1d_kib": by_level.get(1),
        "l2_kib": by_level.get(2),
        "last_level_kib": by_level[last] if last is not None else None,
        "last_level": last,
        "last_level_instances": len(sharing[last]) if last is not None else None,
    }


def clock_policy(root: Path = Path("/")) -> dict[str, Any]:
    """`governor` and `driver` (joined by commas where CPUs differ), the range that the policy allows, `min_mhz` and `max_mhz`,
    and `turbo`, whether the CPU may exceed its nominal clock."""
    folders = [folder / "cpufreq" for folder in entries(root / CPUS, "cpu[0-9]*")]
    lowest = [value for folder in folders if (value := number(folder / "scaling_min_freq")) is not None]
    highest = [value for folder in folders if (value := number(folder / "scaling_max_freq")) is not None]
    return {
        "governor": _distinct([text(folder / "scaling_governor") for folder in folders]),
        "driver": _distinct([text(folder / "scaling_driver") for folder in folders]),
        "min_mhz": min(lowest) / 1000 if lowest else None,
        "max_mhz": max(highest) / 1000 if highest else None,
        "turbo": _turbo(root),
    }


def _distinct(values: list[str | None]) -> str | None:
    return ", ".join(sorted({value for value in values if value})) or None


def _turbo(root: Path) -> bool | None:
    off, on = text(root / CPUS / "intel_pstate/no_turbo"), text(root / CPUS / "cpufreq/boost")
    if off in ("0", "1"):
        return off == "0"
    return on == "1" if on in ("0", "1") else None


def is_virtual(root: Path = Path("/")) -> bool | None:
    """Whether this is a virtual machine; None where nothing tells."""
    flags = field(root / "proc/cpuinfo", "flags")
    if flags is not None:
        return "hypervisor" in flags.split()
    hypervisors = [text(root / path) for path in ("proc/device-tree/hypervisor/compatible", "sys/hypervisor/type")]
    return True if any(hypervisors) or text(root / "sys/class/dmi/id/sys_vendor") == "QEMU" else None


def on_battery(root: Path = Path("/")) -> bool | None:
    """Whether the computer runs from its battery; None where it has none. Batteries of mice and the like do not count."""
    supplies = [supply for supply in entries(root / "sys/class/power_supply") if text(supply / "scope") != "Device"]
    if any(text(supply / "online") == "1" for supply in supplies if text(supply / "type") != "Battery"):
        return False
    states = [text(supply / "status") for supply in supplies if text(supply / "type") == "Battery"]
    return "Discharging" in states if states else None
