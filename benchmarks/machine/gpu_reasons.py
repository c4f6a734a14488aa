"""Why a GPU's clocks are where they are: NVML's bit mask, by name. Some reasons are harmless, the others slow work down.

Source: nvml.h, nvmlClocksEventReasons (before driver 535: nvmlClocksThrottleReasons).
"""

from __future__ import annotations

from collections.abc import Iterable

REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
IDLE = "gpu_idle"
HARMLESS = (IDLE, "applications_clocks_setting")  # nothing to do; someone's choice


def reason_names(mask: int) -> list[str]:
    """The names of the bits in `mask`, lowest first; none for 0. A bit that is not known is `unknown_0x800`."""
    bits = [1 << place for place in range(mask.bit_length()) if mask >> place & 1]
    return [REASONS.get(bit, f"unknown_{bit:#x}") for bit in bits]


def slowing(names: Iterable[str]) -> list[str]:
    """Those of `names` that slow work down, each once, sorted; what is not known counts among them."""
    return sorted(set(names) - set(HARMLESS))
