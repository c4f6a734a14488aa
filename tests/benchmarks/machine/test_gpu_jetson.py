"""The GPU of a Jetson, laid out in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine.gpu_choice import NoGpu
from benchmarks.machine.gpu_jetson import JetsonReader
from tests.support.fake_machine import jetson, lay


def test_a_jetson_is_read_from_its_files(tmp_path: Path) -> None:
    answer = "NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W\n2\n"
    reader = JetsonReader(0, {}, jetson(tmp_path), lambda words: (0, answer) if words == ["nvpmodel", "-q"] else None)
    assert reader.facts() == {
        "name": "NVIDIA Jetson AGX Orin Developer Kit",
        "index": 0,
        "sure": True,
        "driver": "L4T 35.4.1",
        "min_sm_clock_mhz": 306.0,
        "max_sm_clock_mhz": 1300.5,
        "governor": "nvhost_podgov",
        "clocks_locked": False,
        "power_mode": "MODE_30W",
    }
    assert reader.state() == {"sm_clock_mhz": 918.0, "temperature_c": 49.0}


def test_locked_clocks_of_a_jetson_show(tmp_path: Path) -> None:
    lay(jetson(tmp_path), {"sys/class/devfreq/17000000.ga10b/min_freq": "1300500000"})
    facts = JetsonReader(0, {}, tmp_path, lambda words: None).facts()
    assert (facts["clocks_locked"], facts["power_mode"]) == (True, None)


def test_other_boards_are_no_jetson(tmp_path: Path) -> None:
    lay(
        tmp_path, {"proc/device-tree/compatible": "rockchip,rk3588\0", "sys/class/devfreq/fb000000.gpu/cur_freq": "1000000000"}
    )
    with pytest.raises(NoGpu, match="not a Jetson"):
        JetsonReader(0, {}, tmp_path)


def test_a_jetson_can_hide_its_gpu(tmp_path: Path) -> None:
    with pytest.raises(NoGpu, match="CUDA_VISIBLE_DEVICES"):
        JetsonReader(0, {"CUDA_VISIBLE_DEVICES": "-1"}, jetson(tmp_path))
