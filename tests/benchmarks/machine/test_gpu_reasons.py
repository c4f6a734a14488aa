"""Why a GPU's clocks are where they are, by name."""

from __future__ import annotations

import pytest

from benchmarks.machine.gpu_reasons import reason_names, slowing


@pytest.mark.parametrize(
    ("mask", "names", "slow"),
    [
        (0x0, [], []),
        (0x1, ["gpu_idle"], []),
        (0x2, ["applications_clocks_setting"], []),
        (0x4, ["sw_power_cap"], ["sw_power_cap"]),
        (0x8, ["hw_slowdown"], ["hw_slowdown"]),
        (0x10, ["sync_boost"], ["sync_boost"]),
        (0x20, ["sw_thermal_slowdown"], ["sw_thermal_slowdown"]),
        (0x40, ["hw_thermal_slowdown"], ["hw_thermal_slowdown"]),
        (0x80, ["hw_power_brake_slowdown"], ["hw_power_brake_slowdown"]),
        (0x100, ["display_clock_setting"], ["display_clock_setting"]),
        (0x25, ["gpu_idle", "sw_power_cap", "sw_thermal_slowdown"], ["sw_power_cap", "sw_thermal_slowdown"]),
        (0x8000_0001, ["gpu_idle", "unknown_0x80000000"], ["unknown_0x80000000"]),
    ],
)
def test_bits_are_named_and_harmless_ones_told_apart(mask: int, names: list[str], slow: list[str]) -> None:
    assert reason_names(mask) == names
    assert slowing(names) == slow


def test_reasons_that_slow_down_are_told_once() -> None:
    assert slowing(["sw_power_cap", "gpu_idle", "hw_slowdown", "sw_power_cap"]) == ["hw_slowdown", "sw_power_cap"]
